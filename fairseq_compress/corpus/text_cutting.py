"""Cutting text that is too long for a model: at ends of sentences, else of clauses, else between words or characters.

``"".join(parts) == text``. ``sentencex`` (Wikimedia, MIT licence) finds ends of sentences, or a few rules if it is not
installed. No part begins with a closing bracket, a closing quotation mark or punctuation, none ends with an opening
one, and a word, number, time or address without spaces stays whole unless it is too long. Text without spaces is cut
between characters, but not inside a grapheme, a number or a word in katakana, or before small kana.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from unicodedata import category, combining

from fairseq_compress.languages import ABUGIDAS, KANA, LOGOGRAPHS, base_language

NEARLY = 32  # a part may be shorter than the longest that fits by a 32nd of the limit, which saves measuring it


def _of_category(kind: str) -> str:
    """The brackets or quotation marks of a category, as a set of regular expressions needs them."""
    ranges = (range(0x21, 0x100), range(0x2000, 0x3040), range(0xFE10, 0xFF70))
    return "".join(re.escape(chr(code)) for codes in ranges for code in codes if category(chr(code)) == kind)


_OPENING, _CLOSING, _INITIAL, _FINAL = map(_of_category, ("Ps", "Pe", "Pi", "Pf"))
_QUOTES = "\"'"  # opening and closing ones
_MARKS = ",.;:!?…‥%‰、。，．：；？！・"  # punctuation that belongs to the word before it
_WORDS = re.compile(
    f"(?<=[^ {_OPENING}¿¡])(?<! [{_QUOTES}{_INITIAL}])(?<!\\A[{_QUOTES}{_INITIAL}])"  # not behind what opens
    f" ++(?<!\\d (?=\\d{{3}}(?!\\d)))"  # all spaces; 10 000
    f"(?![{_MARKS}{_CLOSING}]|[{_QUOTES}{_FINAL}](?:[ {_MARKS}{_QUOTES}]|\\Z))(?=.)"  # not before what closes
)
_CLAUSES = re.compile(f"[,;:、，；：][{_QUOTES}{_CLOSING}{_INITIAL}{_FINAL}]* *")

_UNSPACED = f"[{LOGOGRAPHS}{KANA}{ABUGIDAS}]"
_BETWEEN = re.compile(f"(?<={_UNSPACED})(?=[^ ])|(?<=[^ ])(?={_UNSPACED})|(?<=[、。，．：；？！・」』）］｝])(?=[^ ])")
_KATAKANA = re.compile("[\u30a1-\u30ff\uff66-\uff9f]{2}")
_SMALL_SIGNS = frozenset("ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶー々〻ゝゞヽヾ゛゜")
# Thai and Lao: vowels that are written before their consonant, and signs behind it that are not marks.
_LEADING_VOWELS = frozenset("\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4")
_TRAILING_SIGNS = frozenset("\u0e2f\u0e30\u0e32\u0e33\u0e45\u0e46\u0eb0\u0eb2\u0eb3\u0ebd\u0ec6")
_TIBETAN, _TIBETAN_MARKS = re.compile("[\u0f00-\u0fff]{2}"), re.compile("[\u0f08\u0f0b-\u0f14]")
# An end mark with what closes after it, before a capital, a digit or a letter without case; not behind an initial (J.)
# or an ordinal number (3.). Or an end mark of Chinese and Japanese.
_END_MARKS = re.compile(
    r"(?<!\b\w)(?<!\d)[.!?…]+[\"'”’“»)\]]* (?=[\"'“„«(¿¡\[]*[^\W_a-zà-öø-ÿ])"
    r"|(?<=\d)[!?…]+[\"'”’“»)\]]* "
    r"|[。！？｡]+[」』）”’\"]*"
)


def cut_text(text: str, limit: int, length: Callable[[str], int], language: str | None = None) -> list[str]:
    """Cut a line into parts of at most ``limit``: behind the last sentence that fits, else, in the second half of what
    fits, behind the last clause, word or character. White space stays at the ends of the parts.

    Args:
        length: of a part, such as its number of pieces. A single character may be longer than the limit.
        language: a code in any form, for the abbreviations of the language.
    """
    places = _Places(text, language)
    parts, start = [], 0
    while start < len(text):
        end = places.end_of_part(start, limit, length)
        parts.append(text[start:end])
        start = end
    return parts


def sentence_ends(text: str, language: str | None = None) -> list[int]:
    """Ends of sentences, behind the white space after them, without the end of the text."""
    try:
        from sentencex import segment
    except ImportError:
        return [match.end() for match in _END_MARKS.finditer(text) if match.end() < len(text)]
    code = "en" if language is None else base_language(language)
    return list(accumulate(map(len, segment(code, text))))[:-1]


class _Places:
    """Where a text may be cut, by what ends there; each list in order."""

    def __init__(self, text: str, language: str | None) -> None:
        self._text = text
        self._words = [match.end() for match in _WORDS.finditer(text)]
        between = (match.start() for match in _BETWEEN.finditer(text))
        self._characters = [at for at in between if _between_characters(text, at)]
        allowed = {*self._words, *self._characters}
        self._clauses = [at for match in _CLAUSES.finditer(text) if (at := match.end()) in allowed]
        self._sentences = [at for at in sentence_ends(text, language) if at in allowed]
        self._all = [*sorted(allowed), len(text)]
        self._density = 0.25  # length of a character, found better by every measurement

    def end_of_part(self, start: int, limit: int, length: Callable[[str], int]) -> int:
        """Where the part that begins at ``start`` ends."""
        first = bisect_right(self._all, start)
        far = self._all[first] - start > 4 * limit / self._density  # to measure it would take long
        last = first - 1 if far else self._last_that_fits(self._all, first, start, limit, length)
        if last < first:  # a word that is too long, or that looks so
            end = self._inside_word(start, self._all[first], limit, length)
            if end < self._all[first]:
                return end
            last = max(first, self._last_that_fits(self._all, first, start, limit, length))
        end = self._all[last]
        if end == len(self._text):
            return end
        half = (start + end) // 2
        choices = ((self._sentences, start), *((each, half) for each in (self._clauses, self._words, self._all)))
        found = (_last_between(each, least, end) for each, least in choices)
        return next((at for at in found if at is not None), end)

    def _inside_word(self, start: int, end: int, limit: int, length: Callable[[str], int]) -> int:
        """``end`` if the word fits; else white space where a part should not end, or the end of the last grapheme that
        fits, or of the first one."""
        characters = range(start + 1, end + 1)
        at = start + 1 + self._last_that_fits(characters, 0, start, limit, length)
        if at == end:
            return end
        if (space := self._text.rfind(" ", start + 1, at)) > start:
            return space + 1
        while at > start and is_joined(self._text, at):
            at -= 1
        first = (place for place in range(start + 1, end) if not is_joined(self._text, place))
        return at if at > start else next(first, end)

    def _last_that_fits(
        self, places: Sequence[int], first: int, start: int, limit: int, length: Callable[[str], int]
    ) -> int:
        """The index of the last of ``places[first:]`` up to which ``limit`` is kept, or nearly; ``first - 1``: none.

        An interpolation search, as lengths grow nearly with the number of characters; every third step halves.
        """
        low, high, target = first - 1, len(places), start + limit / self._density
        steps = 0
        while high - low > 1:
            steps += 1
            near = min(high, 2 * low - first + 3)  # or twice as far, so that little of a long text is measured
            at = (low + near) // 2 if steps % 3 == 0 else bisect_right(places, target) - 1
            at = min(max(at, low + 1), high - 1)
            size = length(self._text[start : places[at]])
            low, high = (at, high) if size <= limit else (low, at)
            self._density = max(size, 1) / (places[at] - start)
            target = places[at] + (limit - size) / self._density
            if at == low and limit - size < limit // NEARLY:
                break
        return low


def _last_between(places: Sequence[int], least: int, most: int) -> int | None:
    """The last place that is over ``least`` and at most ``most``."""
    index = bisect_right(places, most) - 1
    return places[index] if index >= 0 and places[index] > least else None


def _between_characters(text: str, at: int) -> bool:
    """Whether a part may end before ``text[at]``, with no white space between."""
    last, first = text[at - 1], text[at]
    return not (
        is_joined(text, at)
        or first in _MARKS or first in _QUOTES or first in _SMALL_SIGNS or category(first) in ("Pe", "Pf")
        or last in _QUOTES or category(last) in ("Ps", "Pi")
        or last.isdigit()  # 3月
        or _KATAKANA.match(text, at - 1)
        or last in _LEADING_VOWELS or first in _TRAILING_SIGNS
        or (_TIBETAN.match(text, at - 1) and not _TIBETAN_MARKS.match(last))
    )  # fmt: skip


def is_joined(text: str, at: int) -> bool:
    """Whether ``text[at]`` belongs to the grapheme of the character before it: marks, joiners, flags, skin tones."""
    last, first = text[at - 1], text[at]
    return (
        category(first) in ("Mn", "Mc", "Me", "Cf")
        or "\U0001f3fb" <= first <= "\U0001f3ff"
        or last == "\u200d"
        or combining(last) == 9  # a virama, which joins the next consonant
        or all("\U0001f1e6" <= character <= "\U0001f1ff" for character in (last, first))
    )
