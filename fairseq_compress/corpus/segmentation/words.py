"""No segmentation: the tokens of the text are the entries of the dictionary."""

from collections.abc import Iterable, Iterator, Sequence

from fairseq_compress.corpus.segmentation.segmenter import Segmenter


class Words(Segmenter):
    """Tokens are what white space separates: the words of a tokenizer, or subwords that another tool made."""

    def split(self, lines: Iterable[str]) -> Iterator[str]:
        return (" ".join(line.split()) for line in lines)

    def join(self, subwords: Sequence[str]) -> str:
        return " ".join(subwords)

    def entries(self) -> list[str]:
        return []

    def merges(self) -> list[str]:
        return []

    def is_unknown(self, subword: str) -> bool:
        return True
