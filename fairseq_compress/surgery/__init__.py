"""Making a model of another shape from a trained one."""
