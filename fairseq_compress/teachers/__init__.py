"""Frozen teachers: one or an ensemble, never trained, never saved."""
