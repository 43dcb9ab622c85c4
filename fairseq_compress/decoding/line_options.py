"""Options of text that is translated line by line."""

from dataclasses import dataclass

from fairseq_compress.options import check, option


@dataclass(frozen=True)
class LineOptions:
    """How lines become sentences of a model."""

    nbest: int = option(1, "hypotheses of each line", range="[1, inf)", metavar="K")
    longest: int = option(256, "subwords of a line that are translated at once", range="[1, inf)", metavar="N")
    long_lines: str = option(
        "split", "cut longer ones at ends of sentences, clauses or words, or stop there", choices=("split", "refuse")
    )
    source_lang: str | None = None
    """For the abbreviations of the language; with ``target_lang`` for the white space between parts of a line."""
    target_lang: str | None = None

    def __post_init__(self) -> None:
        check(self)
