"""``fairseq-compress quantize``: a trained checkpoint and a plan -> a quantized checkpoint."""

import argparse
import shlex
import sys

from fairseq_compress.shipped import shipped_names

HELP = (
    "Quantize a trained model by a plan (docs/quantization.md). Without further words: at once and without training. "
    "With -- and the arguments of fairseq-train: stage by stage, with that training after each (iPQ). Architecture and "
    "languages are the checkpoint's. The same command resumes after an interruption. The result is a checkpoint for "
    "fairseq's own commands; pack makes it small."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    built_in = ", ".join(shipped_names("plans", suffix=".yaml"))
    parser.usage = "%(prog)s --checkpoint C.pt --plan PLAN --output Q.pt [options] [-- DATA fairseq-train options]"
    parser.add_argument("--checkpoint", required=True, metavar="C.pt", help="the trained model")
    parser.add_argument("--plan", required=True, metavar="PLAN", help=f"a YAML file, or a built-in plan: {built_in}")
    parser.add_argument("--output", required=True, metavar="Q.pt", help="the quantized checkpoint, without optimizer")
    calibration = parser.add_argument_group("ranges of activations from sentences, else each input has its own")
    calibration.add_argument("--calibration-data", metavar="DATA", help="a folder of fairseq-preprocess")
    calibration.add_argument("--calibration-subset", default="train", metavar="NAME", help="the part of it")
    calibration.add_argument("--calibration-sentences", type=int, default=512, metavar="N", help="drawn at random")
    calibration.add_argument(
        "--calibration-percentile", type=float, default=99.99, metavar="P",
        help="of the magnitudes of a layer's input that become its range",
    )  # fmt: skip
    calibration.add_argument("--seed", type=int, default=1, help="of the sentences that are drawn")
    stages = parser.add_argument_group("training after each stage of the plan")
    stages.add_argument("--stages-dir", metavar="DIR", help="where the stages are; by default OUTPUT.stages")
    stages.add_argument(
        "--train-command", metavar="COMMAND",
        help="what is called with the arguments of the training, such as 'torchrun --nproc_per_node 2 --no-python bash "
        "scripts/lib/train_process.sh fairseq-train'; by default fairseq-train",
    )  # fmt: skip
    parser.add_argument("train", nargs="*", metavar="DATA ...", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Quantize, and print the path of the result."""
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq

    import fairseq_compress
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.evaluation.sizes import packed_weight_bytes
    from fairseq_compress.procedures.calibration import Calibration
    from fairseq_compress.procedures.post_training import quantize
    from fairseq_compress.procedures.stages import TRAIN, quantize_in_stages
    from fairseq_compress.weights.reading import read_plan

    fairseq_compress.register()
    plan = read_plan(args.plan)
    calibration = None
    if args.calibration_data is not None:
        calibration = Calibration(
            args.calibration_data, args.calibration_subset, args.calibration_sentences, args.calibration_percentile,
            args.seed,
        )  # fmt: skip
    if not args.train:
        for option in ("stages_dir", "train_command"):
            if getattr(args, option) is not None:
                name = f"--{option.replace('_', '-')}"
                raise ConfigError(f"{name}: requires the arguments of a training, after --")
        quantize(args.checkpoint, args.output, plan, calibration)
    else:
        command = TRAIN if args.train_command is None else shlex.split(args.train_command)
        folder = args.stages_dir or f"{args.output}.stages"
        quantize_in_stages(args.checkpoint, args.output, plan, folder, args.train, command, calibration)
    before, after = (packed_weight_bytes(path) for path in (args.checkpoint, args.output))
    print(f"weights: {before:,} bytes -> {after:,} bytes, {before / after:.1f} times smaller (packed)", file=sys.stderr)
    print(args.output)
    return 0
