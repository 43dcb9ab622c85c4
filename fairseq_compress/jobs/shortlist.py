"""A lexical shortlist from parallel text: the job of ``fairseq-compress shortlist``."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fairseq_compress.corpus.lexical_counts import LexicalCounts
from fairseq_compress.corpus.segmentation.segmenter import Segmenter
from fairseq_compress.corpus.vocabulary_match import MOST_UNKNOWN_WORDS, warn_of_unknown
from fairseq_compress.corpus.word_links import read_links
from fairseq_compress.decoding.shortlist import Lists
from fairseq_compress.decoding.shortlist_file import ShortlistHeader, write_shortlist
from fairseq_compress.errors import DataError
from fairseq_compress.jobs.aligners import Aligner, Ints, Pair
from fairseq_compress.teachers.dictionaries import word_ids
from fairseq_compress.teachers.loading import LoadedModels
from fairseq_compress.work.files import PathLike, check_parallel, progress, read_lines


@dataclass(frozen=True)
class ParallelText:
    """Raw text with a segmenter, or subwords without."""

    source: PathLike
    target: PathLike
    segmenter: Segmenter | None = None

    def pairs(self, models: LoadedModels) -> Iterator[Pair]:
        """The sentence pairs as ids; text that the dictionaries do not fit is refused behind the last one."""
        total = check_parallel(self.source, self.target)
        texts = [progress(read_lines(self.source), total, "shortlist"), read_lines(self.target)]
        if self.segmenter is not None:
            texts = [self.segmenter.encode(texts[0]), self.segmenter.target.encode(texts[1])]
        dictionaries = models.source, models.target
        words, unknown = np.zeros(2, np.int64), np.zeros(2, np.int64)
        for lines in zip(*texts, strict=True):
            pair = Pair(*(word_ids(line, entries)[:-1] for line, entries in zip(lines, dictionaries, strict=True)))
            words += pair.sizes
            unknown += [np.count_nonzero(ids == entries.unk()) for ids, entries in zip(pair, dictionaries, strict=True)]
            yield pair
        for path, every, some in zip((self.source, self.target), words.tolist(), unknown.tolist(), strict=True):
            if some > MOST_UNKNOWN_WORDS * every:
                raise DataError(
                    f"{path}: {some:,} of {every:,} words are not in the model's dictionary; it needs the subwords "
                    "that it was trained on: --sentencepiece-model segments text"
                )
            warn_of_unknown(str(path), some, every)


def links_of_file(path: PathLike) -> Aligner:
    """The links of a file in Pharaoh's format, a line for each sentence pair."""

    def align(pairs: Iterable[Pair]) -> Iterator[tuple[Pair, Ints]]:
        kept: list[Pair] = []

        def sizes() -> Iterator[tuple[int, int]]:
            for pair in pairs:
                kept.append(pair)
                yield pair.sizes

        for links in read_links(read_lines(path), sizes(), path):
            yield kept.pop(), links

    return align


def make_shortlist(
    output: PathLike, models: LoadedModels, text: ParallelText, align: Aligner, first: int, best: int
) -> ShortlistHeader:
    """Count the links of all pairs and write the shortlist."""
    counts = LexicalCounts(len(models.source), len(models.target))
    for pair, links in align(text.pairs(models)):
        counts.add(pair.source, pair.target, links)
    if not counts.links:
        raise DataError(f"{text.source}, {text.target}: must have links between their subwords, have none")
    return write_shortlist(
        output, lists_of(counts, first, best), first=first, best=best, links=counts.links,
        source_entries=len(models.source), target_entries=len(models.target),
        source_dictionary=models.facts["source_dictionary"], target_dictionary=models.facts["target_dictionary"],
    )  # fmt: skip


def lists_of(counts: LexicalCounts, first: int, best: int) -> Lists:
    """The first N and, for each source entry, the best M without them."""
    always = np.sort(counts.most_frequent(first))
    return Lists(always, *counts.best(best, without=always))
