"""Procedures with training in several stages."""
