"""Warnings about a BLEU score: text that was not decoded, or a tokenizer that does not split the script."""

import re
from collections.abc import Sequence

from fairseq_compress.corpus.bleu_tokenizer import DEFAULT, Tokenizer
from fairseq_compress.languages import unspaced_share

# A subword of sentencepiece, of BPE, or a byte of sentencepiece's byte fallback. In text they come once in many lines.
SUBWORD = re.compile(r"\u2581|@@(?=\s|$)|<0x[0-9A-F]{2}>")
TOLERATED_LINES = 0.01
MOST_LETTERS = 0.5


def score_cautions(hypotheses: Sequence[str], references: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Warnings that a reader of the scores needs, one line each."""
    found = [tokenizer.caution] if tokenizer.caution is not None else []
    for name, lines in (("hypothesis", hypotheses), ("reference", references)):
        share = subword_share(lines)
        if share > TOLERATED_LINES:
            found.append(
                f"{share:.0%} of the lines of the {name} are subword pieces, not text: a BLEU of pieces cannot be "
                "compared with one of words; decode them first (fairseq-compress decode)"
            )
    share = unspaced_share(" ".join(references))
    if tokenizer.name == DEFAULT and share > MOST_LETTERS:
        found.append(
            f"{share:.0%} of the letters of the reference are of a script without spaces between words, of which the "
            f"tokenizer {DEFAULT} makes one word a sentence: give the language with --target-lang"
        )
    return found


def subword_share(lines: Sequence[str]) -> float:
    """The fraction of nonempty lines that contain subwords."""
    filled = [line for line in lines if line.strip()]
    return sum(bool(SUBWORD.search(line)) for line in filled) / max(1, len(filled))
