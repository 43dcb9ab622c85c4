"""Files, manifests, windows, progress and the driver of sharded, resumable work; without torch and fairseq.

Files that are missing, damaged or do not belong together raise DataError; options out of range raise ConfigError.
"""
