"""The sentencepiece models of a checkpoint, which must be those that its dictionaries come from."""

from fairseq.data import Dictionary

from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.corpus.vocabulary_match import Entries, joint_mismatch, mismatch
from fairseq_compress.errors import ConfigError
from fairseq_compress.work.files import PathLike


def open_segmenter(
    model: PathLike, target: PathLike | None, source_entries: Dictionary, target_entries: Dictionary
) -> Segmenter:
    """Open a model, or one of each side, and compare it with the dictionaries.

    Args:
        target: model of the target side; None for one model of both.
    """
    segmenter = Segmenter(model, target)
    if target is not None and source_entries.symbols == target_entries.symbols:
        problem = joint_mismatch(_entries(source_entries), segmenter, segmenter.target)
        _refuse(problem, f"{segmenter.path} and {segmenter.target.path}", "shared")
        return segmenter
    for side, own, dictionary in (("source", segmenter, source_entries), ("target", segmenter.target, target_entries)):
        _refuse(mismatch(_entries(dictionary), own), own.path, side)
    return segmenter


def _entries(dictionary: Dictionary) -> Entries:
    first = dictionary.nspecial
    return Entries(dictionary.symbols[first:], dictionary.count[first:])


def _refuse(problem: str | None, path: str, side: str) -> None:
    if problem:
        raise ConfigError(
            f"--sentencepiece-model: must be that of the checkpoint, and {path} does not belong to its {side} "
            f"dictionary: {problem} (--source-sentencepiece-model, --target-sentencepiece-model for one of each side)"
        )
