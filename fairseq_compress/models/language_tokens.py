"""Language tokens, which a model of many languages adds to every sentence itself.

Sentences, data sets and searches have none of them: to everything outside, the model translates one language into one.
A source x becomes ``[source tokens, x, </s>]``. The decoder reads ``[</s>, target tokens, y]``, and its outputs for the
target tokens are left out: the score of a translation is log p(y | x, language tokens).

Shapes: B sentences, T tokens of each, P language tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fairseq_compress.architecture.shape import Architecture
from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.positions import reading

Features = tuple[Tensor, dict[str, Any]]


def checked(architecture: Architecture, side: str, dictionary: Any) -> tuple[int, ...]:
    """The language tokens of ``source`` or ``target``, which must be in its dictionary."""
    tokens: tuple[int, ...] = getattr(architecture.language_tokens, side)
    if outside := [token for token in tokens if token >= len(dictionary)]:
        raise ConfigError(
            f"language_tokens.{side}: must be entries of the {side} dictionary, in [1, {len(dictionary) - 1}], got "
            f"{outside[0]}"
        )
    return tokens


def before(tokens: Tensor, added: Sequence[int]) -> Tensor:
    """Sentences ``(B, T)`` behind the tokens ``added``: ``(B, P + T)``; padding on the left stays between them."""
    return torch.cat([_rows(tokens, added), tokens], dim=1)


def behind_first(tokens: Tensor, added: Sequence[int]) -> Tensor:
    """Inputs of a decoder ``(B, T)`` with the tokens ``added`` behind the first: ``(B, T + P)``."""
    return torch.cat([tokens[:, :1], _rows(tokens, added), tokens[:, 1:]], dim=1)


def decoded(decoder: Any, features: Callable[[Tensor], Features], tokens: Tensor, incremental: bool) -> Features:
    """The features of a decoder for its inputs ``(B, T)`` without language tokens.

    Args:
        features: the decoder's own function, of inputs with them.
        incremental: whether it appends the last input to its state; the first step appends the language tokens too.
    """
    added = decoder.language_tokens
    whole = behind_first(tokens, added)
    first = len(added) if incremental and tokens.size(1) == 1 else 0
    for length in range(whole.size(1) - first, whole.size(1) + 1):
        part = whole[:, :length]
        with reading((part[:, -1:] if incremental else part).eq(decoder.padding_idx)):
            x, extra = features(part)
    skipped = 0 if incremental else len(added)
    sources = len(decoder.source_language_tokens)
    attention = [None if each is None else each[:, skipped:, sources:] for each in extra["attn"]]
    states = [each if each is None else each[skipped:] for each in extra["inner_states"]]
    return x[:, skipped:], extra | {"attn": attention, "inner_states": states}


def _rows(tokens: Tensor, added: Sequence[int]) -> Tensor:
    return tokens.new_tensor(list(added)).expand(tokens.size(0), -1)
