"""Criterions: thin registered classes over :mod:`fairseq_compress.functional`."""
