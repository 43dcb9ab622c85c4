"""A selected n-best file to the files of :mod:`fairseq_compress.datasets.k_best_files`.

Every list is compared with the binarized source sentence, and its first hypothesis with the binarized target.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fairseq.data import Dictionary, data_utils

from fairseq_compress.corpus.nbest import NBestList, NBestManifest, read_nbest, read_with_source, source_checksum
from fairseq_compress.datasets.k_best_files import KBestWriter, k_best_prefix
from fairseq_compress.errors import DataError
from fairseq_compress.teachers.cache_checksums import data_checksums, dictionary_facts
from fairseq_compress.teachers.dictionaries import word_ids
from fairseq_compress.work.files import PathLike, progress


class BinarizedSide(NamedTuple):
    """One language of a binarized split."""

    sentences: Any
    """fairseq's indexed dataset: token ids, the end of the sentence included."""
    dictionary: Dictionary


class KBestCounts(NamedTuple):
    """Counts of the output."""

    sentences: int
    hypotheses: int
    unknown_sources: int
    """Source sentences with unknown words, which were not compared."""


def binarize_hypotheses(
    nbest: PathLike, data: PathLike, split: str, source: str, target: str, text: PathLike | None = None
) -> KBestCounts:
    """Write the K-best files of a split into the folder ``data``, or nothing.

    Args:
        nbest: a selected n-best file.
        data: folder of fairseq-preprocess, with the sources and the first hypotheses.
        text: the source text that was binarized. Without it, source sentences with unknown words are not compared.
    """
    sides = [_open_side(Path(data), split, source, target, language) for language in (source, target)]
    manifest = NBestManifest.of(nbest)
    prefix = k_best_prefix(data, split, source, target)
    writer = KBestWriter(prefix, len(sides[1].dictionary), manifest.sentences, manifest.hypotheses)
    try:
        unknown = 0
        lists = read_with_source(nbest, text) if text is not None else ((item, None) for item in read_nbest(nbest))
        for item, line in progress(lists, manifest.sentences, "binarize"):
            unknown += _add(writer, item, line, sides, os.fspath(nbest))
        if writer.sentences != len(sides[0].sentences):
            raise DataError(f"{nbest} has {writer.sentences} lists, {prefix} must have {len(sides[0].sentences)}")
        names = ("source", "target")
        writer.finish({
            "split": split, "source_lang": source, "target_lang": target, "nbest_sha256": manifest.sha256,
            "data": data_checksums(data, split, source, target, parts=1),
            "dictionaries": {name: dictionary_facts(side.dictionary) for name, side in zip(names, sides, strict=True)},
            "unknown_sources": unknown,
        })  # fmt: skip
    finally:
        writer.discard()
    return KBestCounts(writer.sentences, writer.hypotheses, unknown)


def _open_side(data: Path, split: str, source: str, target: str, language: str) -> BinarizedSide:
    dictionary = data / f"dict.{language}.txt"
    if not dictionary.is_file():
        raise DataError(f"{data}: has no dict.{language}.txt, so it is no folder of binarized text in that language")
    entries = Dictionary.load(str(dictionary))
    prefix = data / f"{split}.{source}-{target}.{language}"
    sentences = data_utils.load_indexed_dataset(str(prefix), entries, dataset_impl=None)
    if sentences is None:
        raise DataError(f"{data}: has no binarized {prefix.name} (.bin and .idx)")
    return BinarizedSide(sentences, entries)


def _add(writer: KBestWriter, nbest: NBestList, line: str | None, sides: list[BinarizedSide], name: str) -> int:
    """Write one list; 1 if its source was not compared."""
    source, target = sides
    place = f"{name}: list {nbest.index} (line {nbest.index + 1} of the source)"
    if nbest.index >= len(source.sentences):
        raise DataError(f"{place}: the binarized data have {len(source.sentences)} sentences only")
    if not nbest.translated:
        raise DataError(f"{place}: has no hypothesis; kd-data select leaves such sentences out")
    unchecked = _check_source(nbest, line, source, place)
    hypotheses = [word_ids(entry.text, target.dictionary) for entry in nbest.hypotheses]
    binarized = target.sentences[nbest.index].numpy()
    if not np.array_equal(hypotheses[0], binarized):
        raise DataError(
            f"{place}: its first hypothesis must be the binarized target, got {nbest.hypotheses[0].text[:60]!r} "
            f"and {target.dictionary.string(binarized)[:60]!r}"
        )
    writer.add(hypotheses, [entry.score for entry in nbest.hypotheses])
    return unchecked


def _check_source(nbest: NBestList, line: str | None, source: BinarizedSide, place: str) -> int:
    ids, dictionary = source.sentences[nbest.index].numpy(), source.dictionary
    unchecked = line is None and bool((ids == dictionary.unk()).any())
    if line is not None:
        same = np.array_equal(word_ids(line, dictionary), ids)
    else:
        words = " ".join(dictionary.symbols[index] for index in ids[:-1])
        same = unchecked or source_checksum(words) == nbest.checksum
    if not same:
        raise DataError(
            f"{place}: is of another source than the binarized one, {dictionary.string(ids)[:60]!r}"
            + ("" if line is not None else " (for text that is not words with one space between, give --source)")
        )
    return int(unchecked)
