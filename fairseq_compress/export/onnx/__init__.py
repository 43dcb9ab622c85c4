"""ONNX graphs of a model, built from its architecture: each form of layer and embedding is one file in ``forms/``."""
