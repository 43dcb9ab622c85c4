"""``fairseq-compress export``: a checkpoint -> a model directory that translates raw text without torch."""

import argparse
import sys
from pathlib import Path
from typing import Any

from fairseq_compress.cli.sentencepiece_models import add_sentencepiece_arguments, given_models
from fairseq_compress.decoding.search_options import SearchOptions, add_search_arguments, given_search

HELP = (
    "Convert a checkpoint for another runtime, translate with both, and keep the result if it loses no more BLEU than "
    "it may. The directory holds the model, the sentencepiece model (or both) and metadata.json."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--checkpoint", required=True, metavar="C.pt", help="of any architecture of ours")
    parser.add_argument("--data", metavar="DIR", help="folder with dict.LANG.txt; default: beside the checkpoint")
    add_sentencepiece_arguments(parser, "that cut its training text")
    parser.add_argument("--output", required=True, metavar="DIR", help="must not be there yet")
    parser.add_argument(
        "--runtime", choices=("onnx", "ctranslate2", "auto"), default="onnx",
        help="what runs the model; auto: the fastest on this machine, of all that lose no more than they may",
    )  # fmt: skip
    parser.add_argument(
        "--optimize-for", choices=("batches", "sentence"), default="batches",
        help="with auto: sentences a second of many at once, or the time of one by itself",
    )  # fmt: skip
    parser.add_argument(
        "--quantization",
        choices=("float32", "int8", "int8_calibrated", "int8_float32", "int16", "float16", "bfloat16"),
        help="onnx: the first three; ctranslate2: all but int8_calibrated; default: int8, or any with auto",
    )  # fmt: skip
    parser.add_argument("--calibration", metavar="FILE", help="raw source text, 500 lines of it, for int8_calibrated")
    parser.add_argument("--licence", metavar="TEXT", help="under which the model may be used, for metadata.json")
    check = parser.add_argument_group("check, with raw text that the model was not trained on")
    check.add_argument("--check-source", metavar="FILE", help="required, or --no-check")
    check.add_argument("--check-reference", metavar="FILE", help="its translation")
    check.add_argument("--check-sentences", type=int, default=1000, metavar="N", help="the first N lines of them")
    check.add_argument("--max-bleu-loss", type=float, metavar="X", help="default: 0.05 for float32, 0.3 for all others")
    check.add_argument("--no-check", action="store_true", help="convert without a look at what comes out")
    search = parser.add_argument_group("search of the check, which translate then has as its default")
    add_search_arguments(search, SearchOptions())


def run(args: argparse.Namespace) -> int:
    """Export, check and print what the check measured."""
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq

    import fairseq_compress
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.export.auto_runtime import candidates, export_fastest
    from fairseq_compress.export.exporter import ExportOptions, export
    from fairseq_compress.export.self_check import CheckOptions

    fairseq_compress.register()
    search = SearchOptions(**given_search(args))
    check = None
    if args.no_check:
        if args.check_source or args.check_reference:
            raise ConfigError("--no-check: cannot go with --check-source or --check-reference")
    elif not (args.check_source and args.check_reference):
        raise ConfigError("--check-source, --check-reference: must both be given, or --no-check")
    else:
        check = CheckOptions(
            Path(args.check_source), Path(args.check_reference), args.check_sentences, args.max_bleu_loss
        )
    if (models := given_models(args)) is None:
        raise ConfigError("--sentencepiece-model: must be given, or one for each side")
    auto = args.runtime == "auto"
    runtime, quantization = ("onnx", "int8") if auto else (args.runtime, args.quantization or "int8")
    options = ExportOptions(
        args.checkpoint,
        args.data,
        models[0],
        runtime,
        quantization,
        None if auto else args.calibration,
        args.licence,
        search,
        models[1],
    )
    if auto:
        if check is None:
            raise ConfigError("--runtime auto: needs --check-source and --check-reference, which it times too")
        tried = candidates(options, args.quantization, args.calibration)
        directory = export_fastest(tried, args.output, check, args.optimize_for)
        _print_candidates(directory.metadata["auto"])
    else:
        directory = export(options, args.output, check)
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
