"""Pruning: masks of weights."""
