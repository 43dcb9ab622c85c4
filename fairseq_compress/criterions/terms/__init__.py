"""Loss terms, one file each: options, their rules, what is recorded of the models, the loss, its metrics."""
