"""Raw text through a model, line by line, in bounded memory and in order, whatever the lines are like."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.errors import ConfigError, DataError

LINES_AT_ONCE = 4096  # which a model sorts by length; memory holds so many lines
SENTENCE_ENDS = (".", "!", "?", "…", ":", ";")
WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # of sentencepiece


class Hypothesis(NamedTuple):
    """A translation."""

    score: float
    """Log-probability / length**lenpen, in nats, EOS counted."""
    pieces: list[str]


class PieceTranslator(Protocol):
    """A model as a function of pieces."""

    longest: int
    """Pieces that it takes, EOS not counted."""

    def translate(self, sentences: list[list[str]]) -> list[list[Hypothesis]]:
        """The hypotheses of each sentence, best first; no sentence is empty."""


@dataclass(frozen=True)
class LineOptions:
    """What becomes of lines.

    Raises:
        ConfigError: a value is out of its range.
    """

    nbest: int = 1
    longest: int = 256
    """Pieces of a line; a longer one is split or refused."""
    split: bool = True

    def __post_init__(self) -> None:
        if self.nbest < 1:
            raise ConfigError(f"--nbest: must be at least 1, got {self.nbest}")
        if self.longest < 1:
            raise ConfigError(f"--longest: must be at least 1, got {self.longest}")


class Translation(NamedTuple):
    """What becomes of one line."""

    raw: bytes | None
    """Of a line that is not UTF-8, itself."""
    hypotheses: list[tuple[float, str]]
    """Scores and texts, best first; of an empty line one of score 0."""


def translate_lines(
    lines: Iterable[bytes],
    model: PieceTranslator,
    segmenter: Segmenter,
    options: LineOptions,
    report: Callable[[str], None],
    lines_at_once: int = LINES_AT_ONCE,
) -> Iterator[Translation]:
    """Translate lines (without their line feeds), each one in its place.

    Empty lines stay empty. A line that is not UTF-8 is reported and kept as it is. One of more than
    ``options.longest`` pieces is cut at ends of sentences, or else of words, and translated part by part; its score is
    the mean of the parts'.

    Args:
        lines_at_once: read before they are translated.

    Raises:
        DataError: a line is too long and must not be split.
    """
    remaining = enumerate(lines, start=1)
    limit = min(options.longest, model.longest)
    while batch := list(islice(remaining, lines_at_once)):
        texts, broken = _decode(batch, report)
        parts = [split_pieces(pieces.split(), limit) for pieces in segmenter.encode(texts)]
        for (number, _), cut in zip(batch, parts, strict=True):
            if len(cut) > 1 and not options.split:
                length = sum(map(len, cut))
                raise DataError(
                    f"line {number}: {length} pieces, at most {limit} are taken; --long-lines split cuts them"
                )
        jobs = [part for cut in parts for part in cut]
        found = iter(model.translate(jobs) if jobs else [])
        for place, cut in enumerate(parts):
            whole = _join([next(found) for _ in cut], options.nbest, segmenter)
            yield Translation(broken.get(place), whole)


def split_pieces(pieces: list[str], limit: int) -> list[list[str]]:
    """Cut a sentence into parts of at most ``limit`` pieces: behind the last end of a sentence in the second half of
    what fits, else before the last word that starts in it, else in the middle of a word. No pieces give no part."""
    parts = []
    while len(pieces) > limit:
        ends = (place for place in range(limit, limit // 2, -1) if pieces[place - 1].endswith(SENTENCE_ENDS))
        words = (place for place in range(limit, 0, -1) if pieces[place].startswith(WORD_START))
        place = next(ends, None) or next(words, None) or limit
        parts.append(pieces[:place])
        pieces = pieces[place:]
    return [*parts, pieces] if pieces else parts


def _decode(batch: list[tuple[int, bytes]], report: Callable[[str], None]) -> tuple[list[str], dict[int, bytes]]:
    texts, broken = [], {}
    for place, (number, raw) in enumerate(batch):
        try:
            texts.append(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            report(f"line {number}: not UTF-8 at byte {error.start + 1}; it is left as it is")
            broken[place] = raw
            texts.append("")
    return texts, broken


def _join(parts: list[list[Hypothesis]], nbest: int, segmenter: Segmenter) -> list[tuple[float, str]]:
    if not parts:
        return [(0.0, "")]
    count = min(nbest, *(len(part) for part in parts)) if len(parts) > 1 else min(nbest, len(parts[0]))
    whole = []
    for rank in range(count):
        texts = segmenter.decode(" ".join(part[rank].pieces) for part in parts)
        whole.append((sum(part[rank].score for part in parts) / len(parts), " ".join(filter(None, texts))))
    return whole
