"""What runs a model: torch, ONNX Runtime, CTranslate2."""
