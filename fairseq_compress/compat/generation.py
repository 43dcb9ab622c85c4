"""Fixes of fairseq's sequence generator."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fairseq.ngram_repeat_block import NGramRepeatBlock
from torch import Tensor

from fairseq_compress.compat.replacing import is_replaced, replace


def patch_ngram_blocking(repeating_tokens: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]) -> None:
    """Make ``--no-repeat-ngram-size`` of fairseq-generate and fairseq-interactive forbid n-grams.

    fairseq's ``NGramRepeatBlock`` compares with the last n - 1 columns of a buffer for the longest translation, which
    are padding until the last step (facebookresearch/fairseq#5206); with n = 1 it compares with nothing.

    Args:
        repeating_tokens: hypotheses ``(N, T)`` and n -> rows, and the tokens that must not come next.
    """
    original = NGramRepeatBlock.forward
    if is_replaced(original):
        return

    @functools.wraps(original)
    def forward(self: Any, tokens: Tensor, lprobs: Tensor, bsz: int, beam_size: int, step: int) -> Tensor:
        history = tokens[:, 1 : step + 1].cpu().numpy()  # the first is EOS
        rows, repeated = repeating_tokens(history, self.no_repeat_ngram_size)
        lprobs[torch.from_numpy(rows), torch.from_numpy(repeated)] = -math.inf
        return lprobs

    replace(NGramRepeatBlock, "forward", original, forward)
