"""Extend a trained teacher's embeddings and output to a student's vocabulary.

A new subword starts from the mean of the teacher's segmentation of its text: ``▁playing`` from ``▁play`` and ``ing``.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.functional.ties import tied_groups

logger = logging.getLogger(__name__)

TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
BIAS = "decoder.output_projection.bias"

Segment = Callable[[str], Sequence[str]]


def extended_table(table: Tensor, segmentations: Sequence[Sequence[int]]) -> Tensor:
    r"""A table (V + n, D): its V rows, and for each new piece the mean of the rows of its segmentation,

        E_{V+j} = 1/\|s_j\| Σ_{i in s_j} E_i

    Means are summed in float64. ``table`` E is (V, D), or (V,) for a bias; ``segmentations`` are n lists of rows.
    """
    if table.dim() not in (1, 2) or not table.is_floating_point():
        raise ValueError(f"table must be floating (V, D) or (V,), got {table.dtype} {tuple(table.shape)}")
    for number, rows in enumerate(segmentations):
        if not rows:
            raise ValueError(f"segmentations must have a row for each new piece, got none for number {number}")
        outside = [row for row in rows if not 0 <= row < table.size(0)]
        if outside:
            raise ValueError(f"segmentations must be of rows 0 to {table.size(0) - 1}, got {outside[0]}")
    means = [table[torch.tensor(rows, device=table.device)].double().mean(0) for rows in segmentations]
    return torch.cat([table, torch.stack(means).to(table.dtype)]) if means else table.clone()


def segmentations(union: Any, teacher: Any, segment: Segment) -> list[list[int]]:
    """The teacher's ids of the text of each subword of ``union`` that it lacks.

    Unknown subwords, and those that normalization removes, are ``<unk>``; their number is logged.
    """
    if union.symbols[: len(teacher)] != teacher.symbols:
        place = next(i for i, symbol in enumerate(teacher.symbols) if union.symbols[i : i + 1] != [symbol])
        raise ConfigError(
            f"union: must begin with the teacher's {len(teacher)} entries, got {union.symbols[place : place + 1]} "
            f"for {teacher.symbols[place]!r} at {place}"
        )
    new = union.symbols[len(teacher) :]
    found = [[teacher.index(piece) for piece in segment(symbol)] or [teacher.unk()] for symbol in new]
    unknown = sum(teacher.unk() in ids for ids in found)
    logger.info("vocabulary: %d pieces added to %d, %d of them from <unk>", len(found), len(teacher), unknown)
    return found


def extend_vocabulary(weights: Mapping[str, Tensor], union: Any, teacher: Any, segment: Segment) -> dict[str, Tensor]:
    """The state dict of a transformer over ``teacher``'s dictionary as that of one over ``union``'s.

    The embedding tables of encoder and decoder, the output matrix and its bias are extended by
    :func:`extended_table`; all else stays, and ties too.

    Args:
        weights: of a model with plain tables and joined dictionaries.
        union: fairseq's dictionary, which begins with the teacher's entries.
        segment: a new subword -> the teacher's subwords of its text.
    """
    for key in TABLES:
        rows = weights[key].size(0) if key in weights else None
        if rows != len(teacher):
            got = "no plain table" if rows is None else str(rows)
            raise CheckpointError(f"teacher: {key} must have {len(teacher)} rows, one for each entry, got {got}")
    new = segmentations(union, teacher, segment)
    extended = dict(weights)
    for names in tied_groups({key: weights[key].detach() for key in (*TABLES, BIAS) if key in weights}):
        extended |= dict.fromkeys(names, extended_table(weights[names[0]].detach(), new))
    return extended
