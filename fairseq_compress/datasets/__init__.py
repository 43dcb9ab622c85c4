"""Datasets of fairseq with something more in their batches, such as what a teacher said of each token."""
