"""Translation of raw text line by line, in bounded memory and in order."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from fairseq_compress.corpus.segmentation.segmenter import Segmenter
from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.search_model import SubwordTranslator
from fairseq_compress.decoding.search_options import LineOptions
from fairseq_compress.errors import DataError
from fairseq_compress.work.windows import groups

LINES_AT_ONCE = 4096  # which a model sorts by length
BYTES_AT_ONCE = 1 << 19  # memory grows by some 100 bytes for each


class Translation(NamedTuple):
    """The result for one line."""

    raw: bytes | None  # the line itself, if it is not UTF-8
    hypotheses: list[Hypothesis[str]]  # best first; of an empty line one of score 0


class _Part(NamedTuple):
    """A part of a line that is translated at once."""

    gap: str  # white space before its translation
    subwords: list[str]


def translate_lines(
    lines: Iterable[bytes | None], model: SubwordTranslator, segmenter: Segmenter, options: LineOptions,
    report: Callable[[str], None] | None = None, lines_at_once: int = LINES_AT_ONCE,
) -> Iterator[Translation]:  # fmt: skip
    """Translate lines (without their line feeds) in order.

    Empty lines stay empty. A line that is not UTF-8 is reported and passed through. One of more than
    ``options.longest`` subwords is cut (:func:`fairseq_compress.corpus.text_cutting.cut_text`) and translated part by
    part; its score is the mean of theirs.

    Args:
        lines: None stands for a pause, at which the lines before it are translated.
        report: called with a message for each line that is not UTF-8.
        lines_at_once: maximum number of lines translated together, of at most half a megabyte.
    """
    limit = min(options.longest, model.longest)
    number = 0
    for batch in groups(lines, len, lines_at_once, BYTES_AT_ONCE):
        texts, broken = _decode(batch, number, report)
        cuts: list[list[_Part]] = []
        for text, subwords in zip(texts, segmenter.encode(texts), strict=True):
            number += 1
            cuts.append(_cut(text, subwords.split(), limit, segmenter, options, number))
        jobs = [part.subwords for parts in cuts for part in parts]
        found = iter(model.translate(jobs) if jobs else [])
        for place, parts in enumerate(cuts):
            whole = _join(parts, [next(found) for _ in parts], options.nbest, segmenter)
            yield Translation(broken.get(place), whole)


def _decode(
    batch: list[bytes], before: int, report: Callable[[str], None] | None
) -> tuple[list[str], dict[int, bytes]]:
    texts, broken = [], {}
    for place, raw in enumerate(batch):
        try:
            texts.append(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            if report is not None:
                report(f"line {before + place + 1}: not UTF-8 at byte {error.start + 1}; it is left as it is")
            broken[place] = raw
            texts.append("")
    return texts, broken


def _cut(
    text: str, subwords: list[str], limit: int, segmenter: Segmenter, options: LineOptions, number: int
) -> list[_Part]:
    """The parts of a line, none if it is empty."""
    if len(subwords) <= limit:
        return [_Part("", subwords)] if subwords else []
    if options.long_lines == "refuse":
        raise DataError(
            f"line {number}: {len(subwords)} subwords, at most {limit} are taken; --long-lines split cuts them"
        )
    from fairseq_compress.corpus.text_cutting import cut_text  # takes a tenth of the time to the first translation

    texts = cut_text(
        segmenter.clean(text), limit, lambda part: len(next(segmenter.encode([part])).split()), options.source_lang
    )
    parts: list[_Part] = []
    before = ""
    for part, encoded in zip(texts, segmenter.encode(texts), strict=True):
        gap = _gap(before, part, options.source_lang, options.target_lang) if parts else ""
        cut = encoded.split()
        for start in range(0, len(cut), limit):  # a single character may have more subwords
            parts.append(_Part("" if start else gap, cut[start : start + limit]))
        before = part
    return parts


def _gap(before: str, behind: str, source: str | None, target: str | None) -> str:
    """The white space between translations of two parts: that of the parts, if both languages use spaces or none."""
    from fairseq_compress.languages import has_sentence_spaces, is_unspaced  # tables

    gap = " " if before.endswith(" ") else ""
    if source is None or target is None or is_unspaced(source) == is_unspaced(target):
        return gap
    if is_unspaced(target):
        return gap if has_sentence_spaces(target) else ""
    within_word = before[-1:].isascii() and behind[:1].isascii()  # an address among Chinese, that was cut
    return gap if within_word else " "


def _join(
    parts: list[_Part], found: list[list[Hypothesis[list[str]]]], nbest: int, segmenter: Segmenter
) -> list[Hypothesis[str]]:
    if not parts:
        return [Hypothesis(0.0, "")]
    whole = []
    for rank in range(min(nbest, *map(len, found))):
        texts = segmenter.decode(" ".join(each[rank].output) for each in found)
        joined = gap = ""
        for part, text in zip(parts, texts, strict=True):
            gap = part.gap or gap
            if text:
                joined, gap = (joined + gap + text if joined else text), ""
        whole.append(Hypothesis(sum(each[rank].score for each in found) / len(found), joined))
    return whole
