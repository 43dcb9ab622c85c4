"""Loss terms, one file each: options, their rules, the hidden states to record, the loss, its metrics."""
