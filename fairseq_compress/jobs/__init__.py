"""Sharded, resumable jobs over a corpus: n-best lists, reverse scores, teacher caches."""
