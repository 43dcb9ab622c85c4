"""Tasks: thin registered classes."""
