"""The mathematics of layers: low rank, tensor trains, sparse supports, recurrences."""
