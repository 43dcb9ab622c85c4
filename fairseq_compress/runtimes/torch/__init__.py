"""Decoding with torch: checkpoints and packed files."""
