"""Decoding with ONNX Runtime."""
