"""Options of beam search for every runtime, named and defined as in fairseq-generate, and of text in lines."""

from collections.abc import Iterator
from dataclasses import dataclass

from fairseq_compress.errors import ConfigError
from fairseq_compress.options import check, option


@dataclass(frozen=True)
class SearchOptions:
    """Options of beam search."""

    beam: int = option(5, "hypotheses followed at a time", range="[1, inf)", metavar="N")
    lenpen: float = option(1.0, "score = log-probability / length**P, EOS counted", range="(-inf, inf)", metavar="P")
    max_len_a: float = option(
        0.0,
        "maximum length: A * source length + B tokens; EOS counts in the source length only",
        range="[0, inf)",
        metavar="A",
    )
    max_len_b: int = option(200, "see --max-len-a", range="[1, inf)", metavar="B")
    min_len: int = option(1, "minimum length in tokens, without EOS", range="[0, inf)", metavar="N")
    unkpen: float = option(
        0.0, "penalty, subtracted from the log-probability of <unk>", range="[-inf, inf]", metavar="P"
    )
    no_repeat_ngram_size: int = option(
        0, "forbid repeated sequences of N tokens in a translation; 0 allows all", range="[0, inf)", metavar="N"
    )

    def __post_init__(self) -> None:
        check(self, self._rules())

    def _rules(self) -> Iterator[str]:
        if self.min_len > self.max_len_b:
            yield f"--min-len: must be at most --max-len-b ({self.max_len_b}), got {self.min_len}"

    def check_beam(self, entries: int) -> None:
        """Refuse a beam larger than the number of entries besides padding and EOS."""
        if self.beam > entries - 2:
            raise ConfigError(f"--beam: must be at most {entries - 2} with this dictionary, got {self.beam}")

    def check_nbest(self, nbest: int) -> None:
        """Refuse more hypotheses than the beam holds."""
        if nbest > self.beam:
            raise ConfigError(f"--nbest: must be at most --beam ({self.beam}), got {nbest}")

    def greatest_length(self, source_length: int) -> int:
        """Maximum length of a translation; EOS counts in the source alone."""
        return int(self.max_len_a * source_length + self.max_len_b)


@dataclass(frozen=True)
class LineOptions:
    """How lines of text become sentences of a model."""

    nbest: int = option(1, "hypotheses written for each line", range="[1, inf)", metavar="K")
    longest: int = option(
        256, "largest number of subwords in a line; longer lines: see --long-lines", range="[1, inf)", metavar="N"
    )
    long_lines: str = option(
        "split",
        "longer lines: split at the end of a sentence, clause or word, or refuse (stop with an error)",
        choices=("split", "refuse"),
    )
    source_lang: str | None = None
    """For the abbreviations of the language; with ``target_lang`` for the white space between parts of a line."""
    target_lang: str | None = None

    def __post_init__(self) -> None:
        check(self)
