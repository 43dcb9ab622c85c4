"""CTranslate2, with its own beam search."""
