"""``fairseq-compress quantize``: a trained checkpoint -> a quantized checkpoint or a packed file."""

import os
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from fairseq_compress import register
from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.options import option
from fairseq_compress.shipped import shipped_names

HELP = (
    "Quantize a trained model with a compression plan (docs/compression-plans.md), without training. With -- and "
    "arguments of fairseq-train, quantize stage by stage and train after each stage (quantization-aware training, "
    "iPQ); architecture and languages come from the checkpoint, and the same command resumes after an interruption. "
    "OUTPUT.pt is a checkpoint for fairseq's commands. OUTPUT.safetensors is a packed file: integers without padding, "
    "scales, shared tensors once; all verbs read it. Without --plan, the checkpoint is packed with its own plan. "
    "Packing prints the bytes of every weight."
)
EXAMPLES = (
    "student.pt student-int4.safetensors --plan int4",
    "student.pt student-ipq.pt --plan ipq -- data-bin/en-cs --criterion label_smoothed_cross_entropy --lr 1e-4",
)
POSITIONAL = ("checkpoint", "output")
REST = "DATA fairseq-train options"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class CalibrationOptions:
    """Sentences from which the ranges of activations are computed."""

    calibration_data: str | None = option(None, "folder written by fairseq-preprocess", metavar="DATA")
    calibration_subset: str = option("train", "split of the data", metavar="NAME")
    calibration_sentences: int = common.number(512, "number of sentences, drawn at random")
    calibration_percentile: float = option(
        99.99, "percentile of the magnitudes of a layer's input that becomes its range", range="(0, 100]", metavar="P"
    )
    seed: int = option(1, "seed of the random sentences")


@dataclass(frozen=True)
class StageOptions:
    """How the stages are trained."""

    stages_dir: str | None = option(None, "folder of the stages; default: OUTPUT.stages", metavar="DIR")
    train_command: str | None = option(
        None, "command that runs the training, such as 'torchrun --nproc_per_node 2 --no-python "
        "bash scripts/lib/train_process.sh fairseq-train'; default: fairseq-train", metavar="COMMAND",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = common.checkpoint("the trained model")
    output: str = common.output("the quantized model, without optimizer state", f"Q.pt|Q{SUFFIX}")
    plan: str | None = option(
        None,
        f"compression plan: a YAML file, or a built-in plan: {', '.join(shipped_names('plans', suffix='.yaml'))}",
        metavar="PLAN",
    )
    format: str | None = option(
        None, f"format of the output; default: packed if its name ends in {SUFFIX}", choices=("checkpoint", "packed")
    )
    calibration: CalibrationOptions = part(
        CalibrationOptions, "calibration of activation ranges; without it, ranges are dynamic (one for each batch)"
    )
    stages: StageOptions = part(StageOptions, "training after each stage of the plan")
    rest: tuple[str, ...] = ()

    @property
    def packs(self) -> bool:
        return self.output.endswith(SUFFIX) if self.format is None else self.format == "packed"

    def problems(self) -> Iterator[str]:
        if os.path.realpath(self.checkpoint) == os.path.realpath(self.output):
            yield f"--output: must not be the checkpoint, got {self.output}"
        if self.plan is None and not self.packs:
            yield f"--plan: must be given, unless the output is packed (its name ends in {SUFFIX})"
        if self.plan is None and (self.rest or self.calibration.calibration_data):
            yield "--plan: must be given with a calibration or a training"
        for name in ("stages_dir", "train_command"):
            if getattr(self.stages, name) is not None and not self.rest:
                yield f"--{name.replace('_', '-')}: requires the arguments of a training, after --"


def run(args: Options) -> None:
    register()
    if not args.packs:
        _quantize(args, args.output)
    elif not args.rest and args.calibration.calibration_data is None:
        _pack(args.checkpoint, args.output, args.plan)
    else:
        with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(args.output))) as folder:
            quantized = os.path.join(folder, "quantized.pt")
            _quantize(args, quantized)
            _pack(quantized, args.output, None)


def _quantize(args: Options, output: str) -> None:
    from fairseq_compress.evaluation.sizes import packed_weight_bytes
    from fairseq_compress.procedures.post_training import Calibration, quantize
    from fairseq_compress.procedures.stages import TRAIN, quantize_in_stages
    from fairseq_compress.weights.reading import read_plan

    plan, chosen, stages = read_plan(str(args.plan)), args.calibration, args.stages
    calibration = None
    if chosen.calibration_data is not None:
        calibration = Calibration(
            chosen.calibration_data, chosen.calibration_subset, chosen.calibration_sentences,
            chosen.calibration_percentile, chosen.seed,
        )  # fmt: skip
    if args.rest:
        command = TRAIN if stages.train_command is None else shlex.split(stages.train_command)
        folder = stages.stages_dir or f"{args.output}.stages"
        quantize_in_stages(args.checkpoint, output, plan, folder, args.rest, command, calibration)
    else:
        quantize(args.checkpoint, output, plan, calibration)
    before, after = (packed_weight_bytes(path) for path in (args.checkpoint, output))
    common.tell(f"weights: {before:,} bytes -> {after:,} bytes, {before / after:.1f} times smaller (packed)")
    if output == args.output:
        print(output)


def _pack(checkpoint: str, output: str, plan: str | None) -> None:
    from fairseq_compress.checkpoint.pack import pack
    from fairseq_compress.evaluation.sizes import size_lines
    from fairseq_compress.weights.reading import read_plan

    entries = pack(checkpoint, output, None if plan is None else read_plan(plan))
    print(*size_lines(entries), sep="\n")
    common.tell(f"{output}: {sum(entry.bytes for entry in entries):,} bytes")
