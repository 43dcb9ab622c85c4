"""Datasets of fairseq with more in their batches, such as a teacher's outputs."""
