"""What every segmentation has in common."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from fairseq_compress.corpus.normalization import squeeze_whitespace
from fairseq_compress.work.files import PathLike


class Tokenizer(Protocol):
    """Words and punctuation apart, and together again."""

    def tokenize(self, text: str) -> str:
        """The tokens, separated by spaces."""

    def detokenize(self, tokens: str) -> str:
        """The text of tokens separated by white space."""


class Segmenter(ABC):
    """Text to subwords of one language, and subwords of ``target`` to text.

    Args:
        path: its file, None if it has none.
        tokenizer: before the segmentation and behind the joining; None: the text is segmented as it is.
    """

    def __init__(self, path: PathLike | None, tokenizer: Tokenizer | None = None) -> None:
        self.path = "" if path is None else os.fspath(path)
        self.tokenizer = tokenizer
        self.target: Segmenter = self
        """The segmenter of the target language, whose subwords :meth:`decode` joins; by default itself."""

    def encode(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the subwords of each line, separated by spaces; an empty line stays one."""
        cleaned = map(self.clean, lines)
        return self.split(cleaned if self.tokenizer is None else map(self.tokenizer.tokenize, cleaned))

    def decode(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the text of each line of subwords of the target language, without line feeds."""
        side = self.target
        for line in lines:
            subwords = line.split()
            text = side.join(subwords) if subwords else ""
            yield squeeze_whitespace(text if side.tokenizer is None else side.tokenizer.detokenize(text))

    def clean(self, line: str) -> str:
        """A line as it is tokenized; by default unchanged, as in the tools that fairseq's models were trained with."""
        return line

    @abstractmethod
    def split(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the subwords of each line of cleaned and tokenized text, separated by spaces."""

    @abstractmethod
    def join(self, subwords: Sequence[str]) -> str:
        """The tokenized text of subwords of this language, of at least one."""

    noun = "subwords"
    """What messages call them."""
    strays = 0.0
    """Share of the entries of a dictionary that may be none of its subwords."""

    # What fairseq's dictionary of this segmentation has (corpus/vocabulary_match.py).

    @abstractmethod
    def entries(self) -> list[str]:
        """All subwords that it can make of the characters that it knows."""

    @abstractmethod
    def merges(self) -> list[str]:
        """The merges of a byte-pair encoding, in their order, as subwords; none of another segmentation."""

    @abstractmethod
    def is_unknown(self, subword: str) -> bool:
        """Whether a subword is text that the segmentation does not know, and leaves unchanged."""

    def makes(self, subword: str) -> bool:
        """Whether it makes a subword that is not among :meth:`entries`."""
        return False

    def vocabulary(self) -> list[str]:
        """What a dictionary has that was written from the model, not counted in a text; empty if there is none."""
        return []
