"""Activation functions of fairseq."""

import functools
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from fairseq import utils

from fairseq_compress.compat.replacing import is_replaced, replace


def patch_swish() -> None:
    """Make ``--activation-fn swish`` the function x · sigmoid(x); fairseq returns a class, which layers cannot call."""
    original = utils.get_activation_fn
    if is_replaced(original):
        return

    @functools.wraps(original)
    def get_activation_fn(activation: str) -> Callable[..., Any]:
        function: Callable[..., Any] = F.silu if activation == "swish" else original(activation)
        return function

    replace(utils, "get_activation_fn", original, get_activation_fn)
