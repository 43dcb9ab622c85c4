"""Measuring systems: scores of a translation, exact sizes of a checkpoint, the table and picture that compare them."""
