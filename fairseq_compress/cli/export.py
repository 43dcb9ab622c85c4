"""``fairseq-compress export``: a checkpoint -> a model directory that translates raw text without torch."""

import argparse
import sys
from typing import Any

from fairseq_compress.cli.sentencepiece_models import add_sentencepiece_arguments, given_models
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError
from fairseq_compress.export.options import AUTO, CheckOptions, ExportOptions
from fairseq_compress.options import add_arguments as add_options
from fairseq_compress.options import from_arguments

HELP = (
    "Convert a checkpoint for another runtime, translate with both, and keep the result if it loses no more BLEU than "
    "it may. The directory holds the model, the sentencepiece model (or both) and metadata.json."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    add_options(parser, ExportOptions, names=("checkpoint", "data"))
    add_sentencepiece_arguments(parser, "that cut its training text")
    parser.add_argument("--output", required=True, metavar="DIR", help="must not be there yet")
    add_options(parser, ExportOptions, names=("runtime", "optimize_for", "quantization", "calibration", "licence"))
    add_options(
        parser.add_argument_group("check, with raw text that the model was not trained on"), CheckOptions
    )  # fmt: skip
    add_options(
        parser.add_argument_group("search of the check, which translate then has as its default"), SearchOptions
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Export, check and print what the check measured."""
    from fairseq_compress.export.exporter import export
    from fairseq_compress.export.fastest import export_fastest

    check = from_arguments(CheckOptions, args)
    if (models := given_models(args)) is None:
        raise ConfigError("--sentencepiece-model: must be given, or one for each side")
    search = from_arguments(SearchOptions, args)
    options = from_arguments(ExportOptions, args, sentencepiece=models, search=search)
    directory = (export_fastest if options.runtime == AUTO else export)(options, args.output, check)
    if auto := directory.metadata.get("auto"):
        _print_candidates(auto)
    metadata = directory.metadata
    print(
        f"{args.output}: {metadata['runtime']} {metadata['quantization']}, {metadata['parameters']:,} parameters, "
        f"{metadata['bytes']:,} bytes", file=sys.stderr,
    )  # fmt: skip
    if found := metadata["check"]:
        print(
            f"{found['sentences']} sentences: {found['equal']:.1%} of the outputs equal; BLEU "
            f"{found['bleu']['exported']:.2f} ({found['bleu']['difference']:+.2f}), chrF2 "
            f"{found['chrf2']['exported']:.2f} ({found['chrf2']['difference']:+.2f})", file=sys.stderr,
        )  # fmt: skip
        for caution in found["cautions"]:
            print(f"fairseq-compress export: warning: {caution}", file=sys.stderr)
    return 0


def _print_candidates(auto: dict[str, Any]) -> None:
    """A line each of what was tried."""
    for each in auto["candidates"]:
        name = f"{each['runtime']} {each['quantization']}"
        if "dropped" in each:
            print(f"{name}: dropped: {each['dropped']}", file=sys.stderr)
        else:
            print(
                f"{name}: {each['sentences_per_second']:.1f} sentences/s, {each['ms_per_sentence']:.1f} ms a sentence, "
                f"{each['bytes']:,} bytes, BLEU {each['bleu_difference']:+.2f}", file=sys.stderr,
            )  # fmt: skip
