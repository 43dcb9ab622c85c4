"""``fairseq-compress export``: a checkpoint -> a model directory that translates raw text without torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_compress import register
from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.options import option

HELP = (
    "Convert a checkpoint for another runtime, translate the text of --source with both, and keep the result if it "
    "loses no more BLEU than allowed. The directory holds the model, its SentencePiece models and metadata.json."
)
EXAMPLES = (
    "student.pt student-int8 --sentencepiece-model spm.model --source valid.en --reference valid.cs",
    "student.pt student-fast --sentencepiece-model spm.model --source valid.en --reference valid.cs --runtime auto "
    "--optimize-for sentence",
)
POSITIONAL = ("checkpoint", "output")


@dataclass(frozen=True)
class Check:
    """How the result is verified."""

    source: str | None = common.source("required, unless --no-check is given", None)
    reference: str | None = common.reference("its translation", None)
    check_sentences: int = option(1000, "the first N lines of them", range="[1, inf)", metavar="N")
    max_bleu_loss: float | None = option(
        None, "default: 0.05 for float32, 0.3 for all others", range="[0, inf]", metavar="X"
    )
    no_check: bool = option(False, "convert without verification")

    def problems(self) -> Iterator[str]:
        """The text of the check is complete, or there is no check."""
        given = [name for name, path in (("--source", self.source), ("--reference", self.reference)) if path]
        if self.no_check and given:
            yield f"--no-check: cannot be given with {' and '.join(given)}"
        elif not self.no_check and len(given) < 2:
            yield "--source, --reference: must both be given, or --no-check"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the verb."""

    checkpoint: str = common.checkpoint("a checkpoint of any architecture of ours, packed or not")
    output: str = common.output("must not exist", "DIR")
    data: str | None = common.data()
    runtime: str = option(
        "onnx", "what runs the model; auto: the fastest on this machine of all that lose no more BLEU than allowed",
        choices=("onnx", "ctranslate2", "auto"),
    )  # fmt: skip
    optimize_for: str = option(
        "batches", "with auto: sentences a second of many at once, or the time of one by itself",
        choices=("batches", "sentence"),
    )  # fmt: skip
    quantization: str | None = option(
        None, "onnx: the first three; ctranslate2: all but int8_calibrated; default: int8, or any with auto",
        choices=("float32", "int8", "int8_calibrated", "int8_float32", "int16", "float16", "bfloat16"),
    )  # fmt: skip
    calibration: str | None = option(None, "raw source text, 500 lines of it, for int8_calibrated", metavar="FILE")
    licence: str | None = option(None, "under which the model may be used, for metadata.json", metavar="TEXT")
    sentencepiece: common.SentencePieceModels = part(common.SentencePieceModels, "subwords")
    check: Check = part(Check, "check, with raw text that the model was not trained on")
    search: SearchOptions = part(SearchOptions, "search of the check, which translate then has as its default")

    def problems(self) -> Iterator[str]:
        """What every export requires, and what the choice of a runtime does."""
        if self.sentencepiece.given() is None:
            yield "--sentencepiece-model: must be given, or one for each side"
        if self.runtime == "auto" and self.check.no_check:
            yield "--runtime auto: requires --source and --reference, which it times too"


def run(args: Options) -> int:
    """Export, check and print what the check measured."""
    register()
    from fairseq_compress.export.auto_runtime import candidates, export_fastest
    from fairseq_compress.export.exporter import ExportOptions, export
    from fairseq_compress.export.self_check import CheckOptions

    check, auto = None, args.runtime == "auto"
    if args.check.source and args.check.reference:
        texts = Path(args.check.source), Path(args.check.reference)
        check = CheckOptions(*texts, args.check.check_sentences, args.check.max_bleu_loss)
    runtime, quantization = ("onnx", "int8") if auto else (args.runtime, args.quantization or "int8")
    model, target_model = args.sentencepiece.given() or ("", None)
    options = ExportOptions(
        args.checkpoint,
        args.data,
        model,
        runtime,
        quantization,
        None if auto else args.calibration,
        args.licence,
        args.search,
        target_model,
    )
    if auto and check is not None:
        tried = candidates(options, args.quantization, args.calibration)
        directory = export_fastest(tried, args.output, check, args.optimize_for)
        _tell_candidates(directory.metadata["auto"])
    else:
        directory = export(options, args.output, check)
    _tell_result(args.output, directory.metadata)
    return 0


def _tell_result(output: str, metadata: dict[str, Any]) -> None:
    common.tell(
        f"{output}: {metadata['runtime']} {metadata['quantization']}, {metadata['parameters']:,} parameters, "
        f"{metadata['bytes']:,} bytes"
    )
    if found := metadata["check"]:
        bleu, chrf = found["bleu"], found["chrf2"]
        common.tell(
            f"{found['sentences']} sentences: {found['equal']:.1%} of the outputs equal; BLEU {bleu['exported']:.2f} "
            f"({bleu['difference']:+.2f}), chrF2 {chrf['exported']:.2f} ({chrf['difference']:+.2f})"
        )
        for caution in found["cautions"]:
            common.tell(f"fairseq-compress export: warning: {caution}")


def _tell_candidates(auto: dict[str, Any]) -> None:
    """A line each of what was tried."""
    for each in auto["candidates"]:
        name = f"{each['runtime']} {each['quantization']}"
        if "dropped" in each:
            common.tell(f"{name}: dropped: {each['dropped']}")
        else:
            common.tell(
                f"{name}: {each['sentences_per_second']:.1f} sentences/s, {each['ms_per_sentence']:.1f} ms a sentence, "
                f"{each['bytes']:,} bytes, BLEU {each['bleu_difference']:+.2f}"
            )
