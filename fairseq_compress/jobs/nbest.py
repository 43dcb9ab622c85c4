"""A corpus to an n-best file: the job of ``fairseq-compress nbest``.

A unit is a batch of sentences of similar length. Its result is JSON with the number and the checksum of each source
line, which the join compares with the source again.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from fairseq_compress.corpus.nbest import (
    NBestEntry,
    NBestList,
    NBestManifest,
    NBestWriter,
    source_checksum,
    untranslated,
)
from fairseq_compress.corpus.segmentation.segmenter import Segmenter
from fairseq_compress.corpus.vocabulary_match import warn_of_unknown
from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.search_model import MAX_TOKENS
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import DataError
from fairseq_compress.options import check, option
from fairseq_compress.work.files import PathLike, atomic_write, check_not_empty, read_lines
from fairseq_compress.work.sharded import Job
from fairseq_compress.work.windows import WINDOW, Batch, in_order, iterate_batches
from fairseq_compress.work.work_folder import work_folder

Translate = Callable[[list[list[str]]], list[list[Hypothesis[list[str]]]]]
SPECIAL = {"<s>", "</s>", "<pad>"}  # dictionary entries that are not text


@dataclass(frozen=True)
class NBestOptions:
    """Options of decoding."""

    search: SearchOptions = field(default_factory=SearchOptions)
    nbest: int | None = option(None, "hypotheses kept of each source; default: --beam")
    max_tokens: int = option(MAX_TOKENS["cpu"], "of a batch of sources, padding counted", range="[1, inf)")
    window: int = option(WINDOW, "lines that are sorted by length at a time", range="[1, inf)")
    long_lines: str = option("refuse", "of lines that are too long for the model", choices=("refuse", "skip"))

    def __post_init__(self) -> None:
        wrong = f"--nbest: must be from 1 to --beam ({self.search.beam}), got {self.nbest}"
        check(self, [] if 1 <= self.kept <= self.search.beam else [wrong])

    @property
    def kept(self) -> int:
        """Hypotheses kept of each source."""
        return self.search.beam if self.nbest is None else self.nbest

    def metadata(self) -> dict[str, Any]:
        """All options, for JSON; an option that was added later only where it changes the output."""
        search = asdict(self.search)
        if not self.search.no_repeat_ngram_size:
            del search["no_repeat_ngram_size"]
        others = {"max_tokens": self.max_tokens, "window": self.window, "long_lines": self.long_lines}
        return {**search, "nbest": self.kept, **others}


class Sentence(NamedTuple):
    """A source line."""

    checksum: str
    subwords: list[str]
    too_long: bool
    unknown: int = 0
    """Subwords that the dictionary lacks."""

    @property
    def length(self) -> int:
        """Tokens with EOS; 0 for a sentence that is not decoded."""
        return 0 if self.too_long or not self.subwords else len(self.subwords) + 1


class Corpus:
    """The source text as sentences of a model; every iteration reads it again.

    Args:
        path: raw text with a segmenter, else subwords separated by spaces.
        entries: of the source dictionary.
        longest: the most tokens of a sentence, EOS counted.
    """

    def __init__(
        self, path: PathLike, entries: Container[str], longest: int, segmenter: Segmenter | None = None
    ) -> None:
        self.path, self.longest, self.segmenter = path, longest, segmenter
        self._entries = entries

    def __iter__(self) -> Iterator[Sentence]:
        checksums: deque[str] = deque()  # of the lines inside the segmenter, which takes thousands at a time

        def lines() -> Iterator[str]:
            for line in read_lines(self.path):
                checksums.append(source_checksum(line))
                yield line

        encoded: Iterable[str] = lines() if self.segmenter is None else self.segmenter.encode(lines())
        for line in encoded:
            subwords = line.split()
            unknown = sum(subword not in self._entries for subword in subwords)
            yield Sentence(checksums.popleft(), subwords, len(subwords) >= self.longest, unknown)


class NBestCounts(NamedTuple):
    """Counts of the output."""

    sentences: int
    hypotheses: int
    untranslated: int


class NBestJob(Job[Batch[Sentence], NBestCounts]):
    """Decode a corpus.

    Args:
        output: n-best file.
        translate: subwords to hypotheses.
        metadata: SHA-256 of the source, as ``source``, and the model, its precision and its device.
    """

    name = "nbest"

    def __init__(
        self, output: PathLike, corpus: Corpus, options: NBestOptions, translate: Translate, metadata: Mapping[str, Any]
    ) -> None:
        self.output, self.corpus, self.options = output, corpus, options
        self._translate, self._metadata = translate, metadata
        self._lines = self._words = self._unknown = self._too_long = 0
        self._first_long: tuple[int, int] | None = None  # number and length of the first line that is too long

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self._metadata

    def is_up_to_date(self) -> bool:
        return NBestManifest.matches(self.output, self.metadata)

    def units(self) -> Iterator[Batch[Sentence]]:
        options = self.options
        return iterate_batches(self.corpus, lambda item: item.length, options.max_tokens, window=options.window)

    def size(self, unit: Batch[Sentence]) -> int:
        return len(unit.items)

    def inspect(self, unit: Batch[Sentence]) -> None:
        self._lines += len(unit.items)
        self._words += sum(len(item.subwords) for item in unit.items)
        self._unknown += sum(item.unknown for item in unit.items)
        for index, item in zip(unit.indices, unit.items, strict=True):
            if item.too_long:
                self._too_long += 1
                found = (index, len(item.subwords) + 1)
                self._first_long = min(self._first_long or found, found)

    def finish_survey(self, first_process: bool) -> None:
        path = os.fspath(self.corpus.path)
        check_not_empty(path)
        if self._first_long and self.options.long_lines == "refuse":
            index, length = self._first_long
            raise DataError(
                f"{path}, line {index + 1}: {length} tokens, the model takes {self.corpus.longest}; "
                f"{self._too_long} of {self._lines} lines are too long; --long-lines skip leaves them untranslated"
            )
        if first_process:
            warn_of_unknown(path, self._unknown, self._words)

    def compute(self, unit: Batch[Sentence]) -> bytes:
        """The lists of a batch, as JSON: [index, checksum, [[score, text], ...]]; no entries if not translated."""
        places = [place for place, sentence in enumerate(unit.items) if sentence.length]
        found = self._translate([unit.items[place].subwords for place in places]) if places else []
        entries: dict[int, list[tuple[float, str]]] = {
            place: [(round(score, 6), self._text(subwords)) for score, subwords in best[: self.options.kept]]
            for place, best in zip(places, found, strict=True)
        }
        lists = []
        for place, (index, sentence) in enumerate(zip(unit.indices, unit.items, strict=True)):
            nothing = [] if sentence.too_long else [(0.0, "")]
            lists.append((index, sentence.checksum, entries.get(place, nothing)))
        return json.dumps(lists, ensure_ascii=False, separators=(",", ":")).encode()

    def join(self, results: Iterator[tuple[int, bytes]]) -> NBestCounts:
        """Write all lists in source order, and the sidecar."""
        source, digest, left_out = os.fspath(self.corpus.path), hashlib.sha256(), 0
        lines = read_lines(source, digest)
        with atomic_write(self.output, "wb") as stream:
            writer = NBestWriter(stream)
            for nbest in in_order(self._lists(results), work_folder(self.output), "line"):
                _check_line(nbest, next(lines, None), source)
                writer.write(nbest)
                left_out += not nbest.translated
            if next(lines, None) is not None:
                raise DataError(f"{source}: has more lines than the {writer.sentences} that were decoded")
            if digest.hexdigest() != self.metadata["source"]:
                raise DataError(f"{source}: changed since it was decoded (SHA-256 differs)")
        writer.write_sidecar(self.output, digest.hexdigest(), self.metadata)
        return NBestCounts(writer.sentences, writer.hypotheses, left_out)

    def _lists(self, results: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, int, NBestList]]:
        for unit, payload in results:
            for index, checksum, entries in json.loads(payload):
                best = [NBestEntry(score, text) for score, text in entries]
                yield unit, index, NBestList(index, checksum, best) if best else untranslated(index, checksum)

    def _text(self, subwords: list[str]) -> str:
        """Subwords to text, or to a line of them without a segmenter."""
        line, segmenter = " ".join(subword for subword in subwords if subword not in SPECIAL), self.corpus.segmenter
        return line if segmenter is None else next(segmenter.decode([line]))


def _check_line(nbest: NBestList, line: str | None, source: str) -> None:
    place = f"{source}, line {nbest.index + 1}"
    if line is None:
        raise DataError(f"{place}: was decoded, but the file ends before it: it changed in between")
    if (found := source_checksum(line)) != nbest.checksum:
        raise DataError(
            f"{place}: has the checksum {found}, but {nbest.checksum} when it was decoded: the file changed in "
            "between, or the lists slipped"
        )
