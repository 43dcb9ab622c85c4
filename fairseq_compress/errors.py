"""Exceptions that users see.

Each message is one line that names the argument or file, the rule it broke and the value that was got.
The command line prints it without a traceback; so does ``fairseq-train`` when the plugin is loaded
(see :func:`fairseq_compress.compat.install_excepthook`).
"""


class FairseqCompressError(Exception):
    """Base of every error that a user can cause and can mend."""


class ConfigError(FairseqCompressError):
    """An option or a configuration value is out of its rule, or two of them contradict each other."""


class DataError(FairseqCompressError):
    """A text, a corpus or a dictionary is missing, damaged or does not fit its partner."""


class CheckpointError(FairseqCompressError):
    """A checkpoint is missing, damaged, unsafe to load or does not fit the model."""


class CheckError(FairseqCompressError):
    """What was made does not do what it was made from, so it was thrown away."""


class TrainingError(FairseqCompressError):
    """A training that was started for somebody ended with an error, which it printed itself."""


class MissingPackageError(FairseqCompressError, ImportError):
    """A package of an extra is not installed (:mod:`fairseq_compress.extras`)."""


class MissingFileError(DataError, FileNotFoundError):
    """A file that fairseq was to read is not there; callers of fairseq catch FileNotFoundError."""

    __str__ = DataError.__str__
