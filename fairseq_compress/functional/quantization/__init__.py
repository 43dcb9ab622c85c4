"""Quantization: tensors in, tensors out."""
