"""Layers that change how something is computed, or the shape of it."""
