"""Compression plans: which modules of a model are compressed, and how."""
