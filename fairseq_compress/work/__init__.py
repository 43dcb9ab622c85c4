"""Files, manifests, windows, progress and the driver of sharded, resumable work; without torch and fairseq."""
