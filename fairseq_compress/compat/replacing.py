"""Replace functions of other packages, once."""

from collections.abc import Callable
from typing import Any

PATCHED = "_fairseq_compress_original"


def is_replaced(function: Any) -> bool:
    """Whether a function is already a replacement of ours."""
    return hasattr(function, PATCHED)


def replace(module: Any, name: str, original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    """Put ``replacement`` in the place of ``module.name``; it remembers ``original``."""
    setattr(replacement, PATCHED, original)
    setattr(module, name, replacement)
