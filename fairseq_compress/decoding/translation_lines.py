"""Raw text through a model, line by line, in bounded memory and in order, whatever the lines are like."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fairseq_compress.corpus.cleaning import normalize_line
from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.corpus.text_cutting import cut_text
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.languages import has_sentence_spaces, is_unspaced
from fairseq_compress.work.windows import groups

LINES_AT_ONCE = 4096  # which a model sorts by length
BYTES_AT_ONCE = 1 << 19  # memory grows by some 100 bytes for each


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
    source_lang: str | None = None
    """For the abbreviations of the language; with ``target_lang`` for the white space between parts of a line."""
    target_lang: str | None = None

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


class _Part(NamedTuple):
    """Of a line, which a model translates at once."""

    gap: str
    """Between the translation of the part before and this one's."""
    pieces: list[str]


def translate_lines(
    lines: Iterable[bytes | None],
    model: PieceTranslator,
    segmenter: Segmenter,
    options: LineOptions,
    report: Callable[[str], None],
    lines_at_once: int = LINES_AT_ONCE,
) -> Iterator[Translation]:
    """Translate lines (without their line feeds), each one in its place.

    Empty lines stay empty. A line that is not UTF-8 is reported and kept as it is. One of more than
    ``options.longest`` pieces is cut (:func:`fairseq_compress.corpus.text_cutting.cut_text`) and translated part by
    part; the translations are joined as the parts were, and the score is the mean of theirs.

    Args:
        lines: a None among them stands for a pause: what came before it is translated then.
        lines_at_once: read before they are translated, or as many as have half a megabyte.

    Raises:
        DataError: a line is too long and must not be split.
    """
    limit = min(options.longest, model.longest)
    number = 0
    for batch in groups(lines, len, lines_at_once, BYTES_AT_ONCE):
        texts, broken = _decode(batch, number, report)
        cuts: list[list[_Part]] = []
        for text, pieces in zip(texts, segmenter.encode(texts), strict=True):
            number += 1
            cuts.append(_cut(text, pieces.split(), limit, segmenter, options, number))
        jobs = [part.pieces for parts in cuts for part in parts]
        found = iter(model.translate(jobs) if jobs else [])
        for place, parts in enumerate(cuts):
            whole = _join(parts, [next(found) for _ in parts], options.nbest, segmenter)
            yield Translation(broken.get(place), whole)


def _decode(batch: list[bytes], before: int, report: Callable[[str], None]) -> tuple[list[str], dict[int, bytes]]:
    texts, broken = [], {}
    for place, raw in enumerate(batch):
        try:
            texts.append(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            report(f"line {before + place + 1}: not UTF-8 at byte {error.start + 1}; it is left as it is")
            broken[place] = raw
            texts.append("")
    return texts, broken


def _cut(
    text: str, pieces: list[str], limit: int, segmenter: Segmenter, options: LineOptions, number: int
) -> list[_Part]:
    """The parts of a line; none if it is empty."""
    if len(pieces) <= limit:
        return [_Part("", pieces)] if pieces else []
    if not options.split:
        raise DataError(f"line {number}: {len(pieces)} pieces, at most {limit} are taken; --long-lines split cuts them")
    texts = cut_text(
        normalize_line(text), limit, lambda part: len(next(segmenter.encode([part])).split()), options.source_lang
    )
    parts: list[_Part] = []
    before = ""
    for part, encoded in zip(texts, segmenter.encode(texts), strict=True):
        gap = _gap(before, part, options.source_lang, options.target_lang) if parts else ""
        cut = encoded.split()
        for start in range(0, len(cut), limit):  # a single character may have more pieces
            parts.append(_Part("" if start else gap, cut[start : start + limit]))
        before = part
    return parts


def _gap(before: str, behind: str, source: str | None, target: str | None) -> str:
    """What is between the translations of two parts: what is between the parts, but for languages that differ in it."""
    gap = " " if before.endswith(" ") else ""
    if source is None or target is None or is_unspaced(source) == is_unspaced(target):
        return gap
    if is_unspaced(target):
        return gap if has_sentence_spaces(target) else ""
    within_word = before[-1:].isascii() and behind[:1].isascii()  # an address among Chinese, that was cut
    return gap if within_word else " "


def _join(
    parts: list[_Part], found: list[list[Hypothesis]], nbest: int, segmenter: Segmenter
) -> list[tuple[float, str]]:
    if not parts:
        return [(0.0, "")]
    whole = []
    for rank in range(min(nbest, *map(len, found))):
        texts = segmenter.decode(" ".join(each[rank].pieces) for each in found)
        joined = gap = ""
        for part, text in zip(parts, texts, strict=True):
            gap = part.gap or gap
            if text:
                joined, gap = (joined + gap + text if joined else text), ""
        whole.append((sum(each[rank].score for each in found) / len(found), joined))
    return whole
