"""Transforms of weights: rules, parametrizations and packed forms."""
