r"""Removal of invisible characters: Unicode's ``Default_Ignorable_Code_Point`` and noncharacters.

One is kept only where it changes the appearance of the text:

* U+200C (zero width non-joiner) between two letters, marks or digits of which at least one is of a script with
  joiners: the cursive ones (Arabic, Syriac, N'Ko, Mongolian, Adlam, ...) and those of the Brahmi family.
* U+200D (zero width joiner) next to a letter or mark of such a script, and between two emoji.
* A variation selector (U+FE00-FE0F, U+E0100-E01EF) directly behind a symbol, a digit, a punctuation mark or a letter
  without case; those of Mongolian behind its letters, and U+180E between these.
* U+115F and U+1160, the fillers of old Korean, next to another part of a syllable.
* The tags of a flag: U+1F3F4, U+E0020-E007E, U+E007F.

All others are dropped: the soft hyphen, U+200B and U+2060, the byte order mark, all controls of direction (U+061C,
U+200E-200F, U+202A-202E, U+2066-2069), the combining grapheme joiner, invisible operators, other tags.

Placeholders and blanks become a space: U+FFFD, U+FFFC, U+2800, U+3164 and U+FFA0. Private-use and unassigned
characters are kept; byte pieces carry both unchanged.
"""

import unicodedata

from fairseq_compress.patterns import lazy_pattern

_ABOVE_LATIN = lazy_pattern("[\u00ad\u034f-\U0010ffff]")  # has all that is looked for; a thirtieth of the time
_BLANK = lazy_pattern("[\u2800\u3164\uffa0\ufffc\ufffd]")

_ZWNJ, _ZWJ = "\u200c", "\u200d"
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(
    f"{chr(plane * 0x10000 + 0xFFFE)}{chr(plane * 0x10000 + 0xFFFF)}" for plane in range(17)
)
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff" + _NONCHARACTERS
)
_FLAG = "\U0001f3f4"
_INVISIBLE = lazy_pattern(f"[{_IGNORABLE}]")
_TOKENS = lazy_pattern(f"{_FLAG}(?:[\U000e0020-\U000e007e]+\U000e007f)?|[^{_IGNORABLE}{_FLAG}]+|[{_IGNORABLE}]")

_WITH_JOINERS = lazy_pattern(
    "[\u0600-\u0dff\u0f00-\u109f\u1700-\u18af\u1900-\u1cff\ua800-\ua9ff\uaa60-\uaa7f\uaae0-\uaaff\uabc0-\uabff"
    "\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001e95f]"
)
_MONGOLIAN = lazy_pattern("[\u1820-\u18af]")
_KOREAN = lazy_pattern("[\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff]")
_SELECTORS = lazy_pattern("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_EMOJI_START = "\u2190"


def drop_invisible(text: str) -> str:
    """Drop invisible characters by the rules of this module. Idempotent on text in NFC."""
    if text.isascii() or not _ABOVE_LATIN.search(text):
        return text
    text = _BLANK.sub(" ", text)
    if not _INVISIBLE.search(text):
        return text
    tokens = _TOKENS.findall(text)
    followers, after = [], " "
    for token in reversed(tokens):
        followers.append(after)
        if not _INVISIBLE.match(token):
            after = token[0]
    kept, before = [], " "
    for token, after in zip(tokens, reversed(followers), strict=True):
        if not _INVISIBLE.match(token) or _needed(token, before, after):
            kept.append(token)
            before = token[-1]
    return "".join(kept)


def _needed(character: str, before: str, after: str) -> bool:
    """Whether an invisible character changes the kept character before it or the next visible one."""
    if character == _ZWNJ:
        neighbours = before + after
        return all(_is(one, "LMN") for one in neighbours) and _WITH_JOINERS.search(neighbours) is not None
    if character == _ZWJ:
        joins = any(_is(one, "LM") and _WITH_JOINERS.match(one) for one in (before, after))
        return before not in (_ZWNJ, _ZWJ) and (joins or (_is_emoji(before) and _is_emoji(after)))
    if _SELECTORS.match(character):
        return _is(before, "NPS") or unicodedata.category(before) == "Lo"
    if "\u180b" <= character <= "\u180f":
        return _MONGOLIAN.match(before) is not None and (character != "\u180e" or _MONGOLIAN.match(after) is not None)
    if character in "\u115f\u1160":
        return _KOREAN.match(before) is not None or _KOREAN.match(after) is not None
    return False


def _is(character: str, classes: str) -> bool:
    return unicodedata.category(character)[0] in classes


def _is_emoji(character: str) -> bool:
    """Whether a character is an emoji, also one newer than this Python, or the selector behind one."""
    if _SELECTORS.match(character) or "\U0001f000" <= character <= "\U0001faff":
        return True
    return character >= _EMOJI_START and _is(character, "S")
