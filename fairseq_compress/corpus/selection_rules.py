"""Options of :mod:`fairseq_compress.corpus.kd_data`; another file, as they need no package."""

from dataclasses import dataclass

from fairseq_compress.options import check, option

METRICS = ("bleu", "chrf")


@dataclass(frozen=True)
class SelectionRules:
    """Options of the selection."""

    mode: str = option(help="what is chosen", choices=("best", "k-best", "interpolate"))
    k: int | None = option(
        None, "look at the first K distinct hypotheses; default: all", range="[1, inf)", metavar="K",
        needs="mode=k-best|interpolate",
    )  # fmt: skip
    metric: str | None = option(
        None, "similarity for interpolate; default: bleu", choices=METRICS, needs="mode=interpolate"
    )
    drop_worst: float = option(
        0.0, "drop this fraction of the chosen pairs, those of the lowest reverse scores", range="[0, 1)", metavar="P"
    )
    keep_duplicates: bool = option(False, "keep pairs that occurred before")
    target_lang: str | None = option(
        None, "language of the hypotheses, for the words of bleu; default: what the n-best file says", metavar="LANG"
    )

    def __post_init__(self) -> None:
        check(self)
        if self.mode == "interpolate" and self.metric is None:
            object.__setattr__(self, "metric", METRICS[0])
