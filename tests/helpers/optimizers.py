"""Optimizers of fairseq and options that they take."""

OPTIMIZERS = {
    "adam": ["--weight-decay", "0.1"], "adagrad": [], "adadelta": [], "adamax": [], "adafactor": [],
    "nag": ["--momentum", "0.9"], "sgd": ["--momentum", "0.9"],
}  # fmt: skip
