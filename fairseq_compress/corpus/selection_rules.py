"""Options of :mod:`fairseq_compress.corpus.kd_data`; another file, as they need no package."""

from dataclasses import dataclass

from fairseq_compress.options import check, option

METRICS = ("bleu", "chrf")


@dataclass(frozen=True)
class SelectionRules:
    """Options of the selection."""

    mode: str = option(
        help="the best hypothesis, the first K, or the one of the first K that is most similar to the reference",
        choices=("best", "k-best", "interpolate"),
    )
    k: int | None = option(
        None, "number of distinct hypotheses to consider, best first; default: all", range="[1, inf)", metavar="K",
        needs="mode=k-best|interpolate",
    )  # fmt: skip
    metric: str | None = option(
        None, "sentence-level similarity to the reference; default: bleu", choices=METRICS, needs="mode=interpolate"
    )
    drop_worst: float = option(
        0.0, "fraction of the chosen pairs to drop: those with the lowest reverse scores", range="[0, 1)", metavar="P"
    )
    keep_duplicates: bool = option(False, "keep repeated pairs")
    target_lang: str | None = option(
        None, "language of the hypotheses, for the tokenizer of bleu; default: the n-best file's", metavar="LANG"
    )

    def __post_init__(self) -> None:
        check(self)
        if self.mode == "interpolate" and self.metric is None:
            object.__setattr__(self, "metric", METRICS[0])
