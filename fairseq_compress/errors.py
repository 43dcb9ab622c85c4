"""Exceptions that users see.

Each message is one line that names the argument or file, the rule and the value.
The command line prints it without a traceback; so does ``fairseq-train`` when the plugin is loaded
(see :func:`fairseq_compress.compat.install_excepthook`).
"""


class FairseqCompressError(Exception):
    """Base of all errors that a user can cause and correct."""


class ConfigError(FairseqCompressError):
    """An option or configuration value breaks its rule, or two of them contradict each other."""


class DataError(FairseqCompressError):
    """A text, corpus or dictionary is missing, damaged or does not match another."""


class CheckpointError(FairseqCompressError):
    """A checkpoint is missing, damaged, unsafe to load or does not match the model."""


class CheckError(FairseqCompressError):
    """The converted model failed verification against its source and was discarded."""


class TrainingError(FairseqCompressError):
    """A training subprocess failed; see its own output."""


class MissingPackageError(FairseqCompressError, ImportError):
    """A package of an extra is not installed (:mod:`fairseq_compress.extras`)."""


class MissingFileError(DataError, FileNotFoundError):
    """A file for fairseq does not exist; also a FileNotFoundError, which callers of fairseq catch."""

    __str__ = DataError.__str__
