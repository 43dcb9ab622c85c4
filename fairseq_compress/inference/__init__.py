"""Translating with an exported model: neither torch nor fairseq is imported here."""
