"""``fairseq-compress export``: a checkpoint -> a model directory that translates raw text without torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.export.options import AUTO, CheckOptions, ExportOptions

HELP = (
    "Convert a checkpoint for ONNX Runtime, CTranslate2, or Firefox Translations (bergamot). The text of --source is "
    "translated with the checkpoint and with the converted model, and the result is kept only if BLEU drops by at most "
    "--max-bleu-loss. The directory holds the model, the files of its segmentation and metadata.json; it needs neither "
    "torch nor fairseq."
)
EXAMPLES = (
    "student.pt student-int8 --sentencepiece-model spm.model --source valid.en --reference valid.cs",
    "student.pt student-fast --sentencepiece-model spm.model --source valid.en --reference valid.cs --runtime auto "
    "--optimize-for sentence",
)
POSITIONAL = ("checkpoint", "output")


@dataclass(frozen=True, kw_only=True)
class Options:
    output: str = common.output("the model directory, which must not exist", "DIR")
    what: dict[str, Any] = part(ExportOptions, "model", values=True)
    segmentation: common.SegmentationOptions = part(common.SegmentationOptions, "subwords")
    check: CheckOptions = part(CheckOptions, "verification, with raw text that the model was not trained on")
    search: SearchOptions = part(SearchOptions, "search of the verification, and the default of translate afterwards")

    def problems(self) -> Iterator[str]:
        yield from common.required_segmentation(self.segmentation)


def run(args: Options) -> None:
    from fairseq_compress.export.exporter import export
    from fairseq_compress.export.fastest import export_fastest

    segmentation = args.segmentation.given()
    assert segmentation is not None
    options = ExportOptions(segmentation, **args.what, search=args.search)
    directory = (export_fastest if options.runtime == AUTO else export)(options, args.output, args.check)
    metadata = directory.metadata
    if auto := metadata.get("auto"):
        _tell_candidates(auto)
    common.tell(
        f"{args.output}: {metadata['runtime']} {metadata['quantization']}, {metadata['parameters']:,} parameters, "
        f"{metadata['bytes']:,} bytes"
    )
    if lost := metadata["stored_dense"]:
        common.tell(
            f"fairseq-compress export: warning: {metadata['runtime']} stores dense matrices in place of "
            f"{', '.join(lost)}"
        )
    _tell_forms(metadata.get("forms", {}), metadata["quantization"])
    for reason in metadata.get("bergamot", {}).get("simulated", ()):
        common.tell(f"Firefox cannot run it (Marian and translateLocally can; checked by a simulation): {reason}")
    if found := metadata["check"]:
        bleu, chrf = found["bleu"], found["chrf2"]
        common.tell(
            f"{found['sentences']} sentences: {found['equal']:.1%} of the outputs equal; BLEU {bleu['exported']:.2f} "
            f"({bleu['difference']:+.2f}), chrF2 {chrf['exported']:.2f} ({chrf['difference']:+.2f})"
        )
        if effect := found.get("shortlist"):
            _tell_shortlist(effect, metadata["vocabulary"]["target_entries"])
        for caution in found["cautions"]:
            common.tell(f"fairseq-compress export: warning: {caution}")


def _tell_shortlist(effect: dict[str, Any], entries: int) -> None:
    coverage = effect["coverage"]
    common.tell(
        f"shortlist: {effect['mean_entries']:.0f} of {entries:,} entries for a sentence on average; it has "
        f"{coverage['output']:.2%} of the subwords of translations without it and {coverage['reference']:.2%} of the "
        f"reference; {effect['changed']} translations change, BLEU {effect['bleu_difference']:+.2f}, chrF2 "
        f"{effect['chrf2_difference']:+.2f}"
    )


def _tell_forms(forms: dict[str, Any], quantization: str) -> None:
    """A line for each form of compression that the export does not keep in full."""
    for form, count in forms.get("lost", {}).items():
        common.tell(
            f"warning: {count} matrices lose their form ({form}) and are stored as {quantization}; "
            "--runtime onnx --quantization plan keeps it"
        )
    if sizes := forms.get("expanded_bytes"):
        number = sum(forms["expanded"].values())
        common.tell(
            f"{number} matrices are compressed in the file ({sizes['file']:,} bytes) and float32 in memory "
            f"({sizes['memory']:,} bytes)"
        )


def _tell_candidates(auto: dict[str, Any]) -> None:
    for each in auto["candidates"]:
        name = f"{each['runtime']} {each['quantization']}"
        if "dropped" in each:
            common.tell(f"{name}: dropped: {each['dropped']}")
        else:
            common.tell(
                f"{name}: {each['sentences_per_second']:.1f} sentences/s, {each['ms_per_sentence']:.1f} ms a sentence, "
                f"{each['bytes']:,} bytes, BLEU {each['bleu_difference']:+.2f}"
            )
