"""``fairseq-compress binarize-hypotheses``: selected n-best file -> K-best training data beside fairseq's."""

import argparse
import os
import sys

HELP = (
    "Binarize the hypotheses of a selected n-best file for the criterion sequence_level_kd. The folder must hold the "
    "text of the same selection, binarized by fairseq-preprocess: sources, and best hypotheses as targets."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--nbest", required=True, metavar="FILE", help="--output-nbest of select-hypotheses")
    parser.add_argument("--data", required=True, metavar="DIR", help="output folder of fairseq-preprocess")
    parser.add_argument("--split", default="train", help="part of the data")
    parser.add_argument("--source-lang", metavar="SRC", help="source language (found in the folder)")
    parser.add_argument("--target-lang", metavar="TGT", help="target language (found in the folder)")
    parser.add_argument(
        "--source", metavar="FILE", help="--output-source of select-hypotheses, to compare also unknown words"
    )


def run(args: argparse.Namespace) -> int:
    """Binarize and tell the counts on the standard error."""
    from fairseq.data import data_utils

    import fairseq_compress
    from fairseq_compress.datasets.binarize_hypotheses import binarize_hypotheses
    from fairseq_compress.errors import ConfigError

    fairseq_compress.register()
    found = data_utils.infer_language_pair(args.data) if os.path.isdir(args.data) else (None, None)
    source, target = args.source_lang or found[0], args.target_lang or found[1]
    if source is None or target is None:
        raise ConfigError(f"--source-lang and --target-lang: none is given, and {args.data} has no binarized text")
    counts = binarize_hypotheses(args.nbest, args.data, args.split, source, target, args.source)
    note = f", {counts.unknown_sources:,} sources with unknown words not compared" if counts.unknown_sources else ""
    print(f"{args.data}: {counts.sentences:,} sentences, {counts.hypotheses:,} hypotheses{note}", file=sys.stderr)
    return 0
