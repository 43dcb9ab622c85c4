"""Marian's 8-bit models, as Firefox Translations and translateLocally load them."""
