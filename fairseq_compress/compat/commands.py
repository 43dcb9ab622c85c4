"""Error messages of fairseq's commands."""

import functools
import os
import sys
from types import TracebackType
from typing import Any

from fairseq import options

from fairseq_compress.compat.replacing import is_replaced, replace
from fairseq_compress.errors import ConfigError, FairseqCompressError


def install_excepthook() -> None:
    """Print an uncaught :class:`FairseqCompressError` as one line; Python then exits with status 1.

    ``fairseq-hydra-train`` prints its own traceback unless HYDRA_FULL_ERROR is set.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    previous = sys.excepthook
    if is_replaced(previous):
        return

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        ours: BaseException | None = error
        while ours is not None and not isinstance(ours, FairseqCompressError):
            ours = ours.__context__  # fairseq's trainer hides the cause behind "cannot load model parameters"
        if ours is None:
            previous(kind, error, trace)
        else:
            print(f"fairseq-compress: error: {ours}", file=sys.stderr)

    replace(sys, "excepthook", previous, excepthook)


def patch_missing_architecture() -> None:
    """Name the option that is missing where fairseq-train raises a bare ``RuntimeError()``."""
    original = options.parse_args_and_arch
    if is_replaced(original):
        return

    @functools.wraps(original)
    def parse_args_and_arch(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except RuntimeError as error:
            if error.args:
                raise
            raise ConfigError("--arch: must name an architecture, such as transformer_small, got none") from None

    replace(options, "parse_args_and_arch", original, parse_args_and_arch)
