"""Checkpoints: loading them safely, building the model inside, averaging."""
