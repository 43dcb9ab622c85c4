"""A corpus to n-best lists, batch by batch, in any number of processes; ``nbest_join.py`` puts them together.

A unit of work is a batch of sentences of similar length. Its lists are kept as JSON, each with the number of the source
line and the checksum of the text that was decoded.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from fairseq.data import Dictionary

from fairseq_compress.corpus.nbest import source_checksum
from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.runtimes.torch.beam_search import MAX_TOKENS, Found
from fairseq_compress.teachers.word_ids import warn_of_unknown
from fairseq_compress.work.files import PathLike, check_not_empty, read_lines
from fairseq_compress.work.progress import write_units
from fairseq_compress.work.sharded import Shard, ShardedWork
from fairseq_compress.work.windows import WINDOW, Batch, check_limits, iterate_batches

Search = Callable[[Sequence[Sequence[int]]], list[list[Found]]]


@dataclass(frozen=True)
class NBestOptions:
    """What is decoded and how.

    Raises:
        ConfigError: a value is out of its range.
    """

    search: SearchOptions = field(default_factory=SearchOptions)
    nbest: int | None = None  # hypotheses kept of each source; None: all of the beam
    max_tokens: int = MAX_TOKENS["cpu"]  # of a batch, source side, padding counted
    window: int = WINDOW
    long_lines: str = "refuse"  # or skip

    def __post_init__(self) -> None:
        check_limits(self.max_tokens, None, self.window)
        if not 1 <= self.kept <= self.search.beam:
            raise ConfigError(f"--nbest: must be from 1 to --beam ({self.search.beam}), got {self.nbest}")

    @property
    def kept(self) -> int:
        """Hypotheses kept of each source."""
        return self.search.beam if self.nbest is None else self.nbest

    def facts(self) -> dict[str, Any]:
        """All of them, as JSON can hold them; without an option that was added later and forbids nothing."""
        search = asdict(self.search)
        if not self.search.no_repeat_ngram_size:
            del search["no_repeat_ngram_size"]
        return {
            **search,
            "nbest": self.kept,
            "max_tokens": self.max_tokens,
            "window": self.window,
            "long_lines": self.long_lines,
        }


class Sentence(NamedTuple):
    """A source line."""

    checksum: str
    ids: list[int]
    """Tokens with EOS; EOS alone if the line is empty."""
    too_long: bool
    unknown: int = 0
    """Tokens that the dictionary does not have."""

    @property
    def length(self) -> int:
        """Tokens to decode."""
        return 0 if self.too_long or len(self.ids) == 1 else len(self.ids)


class Corpus:
    """The source text as sentences of a model; reading it again starts anew.

    Args:
        path: raw text with a segmenter, else pieces separated by spaces.
        dictionary: of the model's source side.
        longest: the most tokens of a sentence, EOS counted.
        segmenter: text to pieces and back.
    """

    def __init__(
        self, path: PathLike, dictionary: Dictionary, longest: int, segmenter: Segmenter | None = None
    ) -> None:
        self.path = path
        self.longest = longest
        self.segmenter = segmenter
        self._dictionary = dictionary

    def __iter__(self) -> Iterator[Sentence]:
        checksums: deque[str] = deque()  # of lines on their way through the segmenter, which takes thousands at a time

        def lines() -> Iterator[str]:
            for line in read_lines(self.path):
                checksums.append(source_checksum(line))
                yield line

        indices, unknown, eos = self._dictionary.indices, self._dictionary.unk(), self._dictionary.eos()
        pieces: Iterable[str] = lines() if self.segmenter is None else self.segmenter.encode(lines())
        for line in pieces:
            ids = [indices.get(piece, unknown) for piece in line.split()]
            ids.append(eos)
            yield Sentence(checksums.popleft(), ids, len(ids) > self.longest, ids.count(unknown))


class Share(NamedTuple):
    """How much work there is."""

    lines: int
    own: int
    """Lines in the units of one process."""
    too_long: int


def survey(corpus: Corpus, options: NBestOptions, shard: Shard) -> Share:
    """Read the whole source before anything is decoded, and warn if many of its words are unknown.

    Raises:
        DataError: the source is missing, empty or not UTF-8, or with ``--long-lines refuse`` a line is too long.
    """
    check_not_empty(corpus.path)
    lines = own = too_long = words = unknown = 0
    first: tuple[int, int] | None = None  # number and length of the first line that is too long
    for batch in _batches(corpus, options):
        lines += len(batch.items)
        own += len(batch.items) if batch.unit % shard.world_size == shard.rank else 0
        words += sum(len(item.ids) - 1 for item in batch.items)
        unknown += sum(item.unknown for item in batch.items)
        long = [(index, len(item.ids)) for index, item in zip(batch.indices, batch.items, strict=True) if item.too_long]
        too_long += len(long)
        first = min([*long, *([first] if first else [])], default=None)
    if first and options.long_lines == "refuse":
        raise DataError(
            f"{os.fspath(corpus.path)}, line {first[0] + 1}: {first[1]} tokens, the model takes {corpus.longest}; "
            f"{too_long} of {lines} lines are too long; --long-lines skip leaves them untranslated"
        )
    if shard.rank == 0:
        warn_of_unknown(os.fspath(corpus.path), unknown, words)
    return Share(lines, own, too_long)


def decode_share(
    work: ShardedWork, corpus: Corpus, target: Dictionary, options: NBestOptions, search: Search, own: int
) -> None:
    """Decode this process's units that are not there yet, with progress on the standard error."""
    write = _writer(target, corpus.segmenter)
    write_units(
        work, _batches(corpus, options), lambda batch: _decode(batch, search, options.kept, write), own, "nbest"
    )


def _batches(corpus: Corpus, options: NBestOptions) -> Iterator[Batch[Sentence]]:
    return iterate_batches(corpus, lambda sentence: sentence.length, options.max_tokens, window=options.window)


def _decode(batch: Batch[Sentence], search: Search, kept: int, text: Callable[[list[int]], str]) -> bytes:
    """The lists of a batch, as JSON: [index, checksum, [[score, text], ...]], without hypotheses if left out."""
    places = [place for place, sentence in enumerate(batch.items) if sentence.length]
    found = search([batch.items[place].ids for place in places]) if places else []
    hypotheses: dict[int, list[tuple[float, str]]] = {
        place: [(round(score, 6), text(ids)) for ids, score in best[:kept]]
        for place, best in zip(places, found, strict=True)
    }
    lists = []
    for place, (index, sentence) in enumerate(zip(batch.indices, batch.items, strict=True)):
        nothing = [] if sentence.too_long else [(0.0, "")]
        lists.append((index, sentence.checksum, hypotheses.get(place, nothing)))
    return json.dumps(lists, ensure_ascii=False, separators=(",", ":")).encode()


def _writer(target: Dictionary, segmenter: Segmenter | None) -> Callable[[list[int]], str]:
    """Token ids to text, or to pieces without a segmenter."""
    silent = {target.bos(), target.eos(), target.pad()}

    def write(ids: list[int]) -> str:
        pieces = " ".join(target.symbols[index] for index in ids if index not in silent)
        return pieces if segmenter is None else next(segmenter.decode([pieces]))

    return write
