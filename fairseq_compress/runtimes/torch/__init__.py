"""torch: checkpoints of fairseq, packed ones and ensembles, with our beam search."""
