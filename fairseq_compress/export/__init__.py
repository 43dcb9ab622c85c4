"""From a checkpoint to a model directory for another runtime."""
