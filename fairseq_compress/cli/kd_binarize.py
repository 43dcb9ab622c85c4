"""``fairseq-compress kd-data binarize``: selected n-best file -> K-best training data next to fairseq's."""

import os
from dataclasses import dataclass

from fairseq_compress import register
from fairseq_compress.cli import common
from fairseq_compress.options import option

HELP = (
    "Binarize the hypotheses of a selected n-best file for --criterion sequence_level_kd. The folder must hold the "
    "same selection, binarized by fairseq-preprocess: the sources, and the best hypotheses as targets."
)
EXAMPLES = (
    "--nbest kd/train.nbest --data data-bin/kd",
    "--nbest kd/train.nbest --data data-bin/kd --source kd/train.en --source-lang en --target-lang cs",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    nbest: str = common.nbest("n-best file from kd-data select --output-nbest")
    data: str = common.data("output folder of fairseq-preprocess; the files are added to it", required=True)
    split: str = option("train", "split of the data")
    source_lang: str | None = common.language("source language; default: found in the folder")
    target_lang: str | None = common.language("target language; default: found in the folder")
    source: str | None = common.source(
        "text from kd-data select --output-source, to also compare sources with unknown words", required=False
    )


def run(args: Options) -> None:
    register()
    from fairseq_compress.datasets.binarize_hypotheses import binarize_hypotheses

    source, target = languages_of(args.data, args.source_lang, args.target_lang)
    counts = binarize_hypotheses(args.nbest, args.data, args.split, source, target, args.source)
    note = f", {counts.unknown_sources:,} sources with unknown words not compared" if counts.unknown_sources else ""
    common.tell(f"{args.data}: {counts.sentences:,} sentences, {counts.hypotheses:,} hypotheses{note}")


def languages_of(data: str, source: str | None = None, target: str | None = None) -> tuple[str, str]:
    """The given languages; default: those of a binarized folder."""
    from fairseq.data import data_utils

    from fairseq_compress.errors import ConfigError

    found = data_utils.infer_language_pair(data) if os.path.isdir(data) else (None, None)
    source, target = source or found[0], target or found[1]
    if source is None or target is None:
        raise ConfigError(f"--source-lang and --target-lang: none is given, and {data} has no binarized text")
    return source, target
