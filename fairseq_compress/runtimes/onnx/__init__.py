"""ONNX Runtime, with our graphs and our beam search."""
