"""Options of ``fairseq-compress export``."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from fairseq_compress import runtimes
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.options import check, flag, option

AUTO = "auto"
CALIBRATED = "int8_calibrated"
PLANNED = "plan"  # every weight as the compression plan has it
ENCODERS = ("float32", "int8", "int8_block", "int4")  # quantizations that the encoder may have of its own
GROUP_SIZES = (16, 32, 64, 128)
DEFAULT_GROUP_SIZES = {"int8_block": 16, "int4": 32}  # with 16 the rounding of 8 bits is a tenth smaller, in equal time
SHORTLISTS = ("onnx", "bergamot")  # runtimes that take one for each sentence
OBJECTIVES = {"batches": "sentences_per_second", "sentence": "ms_per_sentence"}
MAX_BLEU_LOSS = {"float32": 0.05}  # of the quantizations that lose nothing
MAX_BLEU_LOSS_QUANTIZED = 0.3


@dataclass(frozen=True)
class ExportOptions:
    """What is exported and how."""

    segmentation: Segmentation
    """Of the text that the model was trained on."""
    checkpoint: str = option(help="a checkpoint of stock fairseq or of this plugin, packed or not", metavar="C.pt")
    data: str | None = option(None, "folder with dict.LANG.txt; default: next to the checkpoint", metavar="DIR")
    runtime: str = option(
        "onnx",
        "runtime of the model; auto: the fastest on this machine among those that pass the verification",
        metavar=f"{{{','.join((*runtimes.exported(), AUTO))}}}",
    )
    optimize_for: str = option(
        "batches", "with auto, the fastest for batches (sentences a second) or for a single sentence (latency)",
        choices=OBJECTIVES, needs="runtime=auto",
    )  # fmt: skip
    quantization: str | None = option(
        None, "; ".join(f"{name}: {', '.join(each.quantizations)}" for name, each in runtimes.exported().items())
        + "; default: int8 where it is there, or any with auto", metavar="KIND",
    )  # fmt: skip
    encoder_quantization: str | None = option(
        None, "another kind for the encoder's layers, with onnx: int8 is faster there than int8_block and int4, as all "
        "tokens of a sentence are computed at once", choices=ENCODERS, needs="runtime=onnx",
    )  # fmt: skip
    calibration: str | None = option(
        None,
        f"raw source text for {CALIBRATED}, of which 500 lines are used; default: the ranges learned in training",
        metavar="FILE",
    )
    group_size: int | None = option(
        None, "columns of a weight that share a scale in int8_block and int4; default: "
        + ", ".join(f"{size} in {kind}" for kind, size in DEFAULT_GROUP_SIZES.items()),
        choices=GROUP_SIZES, needs="quantization=int8_block|int4", metavar=f"{{{','.join(map(str, GROUP_SIZES))}}}",
    )  # fmt: skip
    asymmetric: bool = option(
        False, "zero points in int8_block and int4: from the least to the greatest weight of a group",
        needs="quantization=int8_block|int4",
    )  # fmt: skip
    shortlist: str | None = option(
        None, "lexical shortlist (fairseq-compress shortlist): the output is computed for few subwords of a sentence",
        metavar="FILE",
    )  # fmt: skip
    licence: str | None = option(None, "licence of the model, for metadata.json", metavar="TEXT")
    search: SearchOptions = field(default_factory=SearchOptions)
    """Of the check, and the defaults of the exported model."""

    def __post_init__(self) -> None:
        runtime = runtimes.exported().get(self.runtime)
        if self.quantization is None and runtime is not None:
            kinds = runtime.quantizations
            object.__setattr__(self, "quantization", kinds[0] if len(kinds) == 1 else "int8")
        if runtime is not None and runtime.search and self.search == SearchOptions():
            object.__setattr__(self, "search", SearchOptions(**runtime.search))
        check(self, self._rules())

    def _rules(self) -> Iterator[str]:
        known = runtimes.exported()
        if self.runtime not in (*known, AUTO):
            yield f"--runtime: must be one of {', '.join((*known, AUTO))}, got {self.runtime}"
            return
        automatic = dict.fromkeys(kind for each in known.values() for kind in each.automatic)
        kinds = list(automatic if self.runtime == AUTO else known[self.runtime].quantizations)
        if self.quantization not in (*kinds, None):
            must = f"must be one of {', '.join(kinds)} with --runtime {self.runtime}"
            yield f"--quantization: {must}, got {self.quantization}"
        for name, value in known[self.runtime].search.items() if self.runtime in known else ():
            if (given := getattr(self.search, name)) != value:
                yield f"{flag(name)}: must be {value} with --runtime {self.runtime}, got {given}"
        if self.shortlist is not None and self.runtime not in SHORTLISTS:
            why = "; CTranslate2 takes one for a whole batch" if self.runtime == "ctranslate2" else ""
            yield f"--shortlist: requires --runtime {' or '.join(SHORTLISTS)}, got {self.runtime}{why}"
        if self.calibration is not None and self.quantization not in (CALIBRATED, None):
            yield f"--calibration: requires --quantization {CALIBRATED}, got {self.quantization}"


@dataclass(frozen=True)
class CheckOptions:
    """How the exported model is compared with the checkpoint."""

    source: str | None = option(None, "source text; required unless --no-check is given", metavar="FILE")
    reference: str | None = option(None, "reference translation of the source text", metavar="FILE")
    check_sentences: int = option(1000, "use the first N lines", range="[1, inf)", metavar="N")
    max_bleu_loss: float | None = option(
        None,
        f"largest drop of BLEU; default: {MAX_BLEU_LOSS['float32']} for float32, else {MAX_BLEU_LOSS_QUANTIZED}",
        range="[0, inf)", metavar="X",
    )  # fmt: skip
    no_check: bool = option(False, "skip the verification")

    def __post_init__(self) -> None:
        check(self, self._rules())

    def _rules(self) -> Iterator[str]:
        if self.no_check and (self.source or self.reference):
            yield "--no-check: cannot be given with --source or --reference"
        if not (self.no_check or (self.source and self.reference)):
            yield "--source, --reference: must both be given, or --no-check"

    def allowed(self, quantization: str) -> float:
        """BLEU that may be lost."""
        default = MAX_BLEU_LOSS.get(quantization, MAX_BLEU_LOSS_QUANTIZED)
        return default if self.max_bleu_loss is None else self.max_bleu_loss
