"""A trained teacher whose embeddings and output also cover the pieces of a student's vocabulary.

Every new piece starts from what the teacher knows of its text: the mean of the rows of the teacher's own segmentation
of it. The student's ``▁playing`` starts between the teacher's ``▁play`` and ``ing``.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence

import sentencepiece
from fairseq.data import Dictionary
from torch import Tensor

from fairseq_compress.errors import CheckpointError, ConfigError, DataError
from fairseq_compress.functional.ties import tied_groups
from fairseq_compress.functional.vocabulary_union import extended_table

logger = logging.getLogger(__name__)

Segment = Callable[[str], Sequence[str]]
"""A piece of one vocabulary -> the pieces of another for its text."""

TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
BIAS = "decoder.output_projection.bias"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# A protobuf message may come in parts, whose last value counts. This part of a sentencepiece ModelProto is its
# normalizer_spec (3) with add_dummy_prefix (3) and remove_extra_whitespaces (4) false.
_AS_IT_IS = b"\x1a\x04\x18\x00\x20\x00"


def piece_segmenter(model: str | os.PathLike[str]) -> Segment:
    """How a sentencepiece model cuts the text of a piece of another vocabulary.

    A sentencepiece model puts the word-start mark ▁ before every text that it is given, so ``ing`` would become
    ``▁ing``, or ``▁`` and ``ing``. The mark cannot be cut off again: it may be part of a longer piece. Here the model
    runs without that rule, and without the one that takes spaces away at the ends; so ``▁play`` is cut as the start of
    a word, ``ing`` as the inside of one, and ``▁`` stays itself. All other rules of the model, such as NFKC, are kept.

    The byte pieces ``<0x00>`` to ``<0xFF>`` stand for no text of their own and stay themselves.

    Raises:
        DataError: the file is missing or no sentencepiece model.
    """
    processor = sentencepiece.SentencePieceProcessor()
    try:
        with open(model, "rb") as stream:
            processor.LoadFromSerializedProto(stream.read() + _AS_IT_IS)
    except OSError as error:
        raise DataError(f"cannot read {os.fspath(model)}: {error.strerror}") from error
    except RuntimeError as error:
        raise DataError(f"{os.fspath(model)} is not a sentencepiece model") from error

    def segment(piece: str) -> Sequence[str]:
        if _BYTE.fullmatch(piece):
            return [piece]
        pieces: list[str] = processor.encode(piece, out_type=str)
        return pieces

    return segment


def segmentations(union: Dictionary, teacher: Dictionary, segment: Segment) -> list[list[int]]:
    """The teacher's ids of the text of each piece of ``union`` that it lacks.

    What its model gives and its dictionary does not know is ``<unk>``, as in translation, and so is a piece of which
    nothing is left after the model's normalization; how many start so is logged.

    Raises:
        ConfigError: ``union`` does not begin with the entries of ``teacher``.
    """
    if union.symbols[: len(teacher)] != teacher.symbols:
        place = next(i for i, symbol in enumerate(teacher.symbols) if union.symbols[i : i + 1] != [symbol])
        raise ConfigError(
            f"union: must begin with the teacher's {len(teacher)} entries, got {union.symbols[place : place + 1]} "
            f"for {teacher.symbols[place]!r} at {place}"
        )
    found = []
    for symbol in union.symbols[len(teacher) :]:
        found.append([teacher.index(piece) for piece in segment(symbol)] or [teacher.unk()])
    unknown = sum(teacher.unk() in ids for ids in found)
    logger.info("vocabulary: %d pieces added to %d, %d of them from <unk>", len(found), len(teacher), unknown)
    return found


def extend_vocabulary(
    weights: Mapping[str, Tensor], union: Dictionary, teacher: Dictionary, segment: Segment
) -> dict[str, Tensor]:
    """The state dict of a transformer over ``teacher``'s pieces as that of one over ``union``'s.

    The embedding tables of encoder and decoder, the output matrix and its bias get the rows of
    :func:`~fairseq_compress.functional.vocabulary_union.extended_table`; all else stays. Weights that were one tensor
    are one again, so ties stay ties.

    Args:
        weights: of a model with plain tables (not factorized, not quantized) and joined dictionaries.
        union: the teacher's entries with their numbers, then more.
        segment: of :func:`piece_segmenter` for the teacher's model.

    Raises:
        ConfigError: ``union`` does not begin with the entries of ``teacher``.
        CheckpointError: a table is missing, or has another number of rows than ``teacher``.
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
