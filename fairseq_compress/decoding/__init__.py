"""Beam search and the handling of lines, for every runtime."""
