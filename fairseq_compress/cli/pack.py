"""``fairseq-compress pack``: a checkpoint -> a packed one."""

import argparse
import sys

HELP = (
    "Write the weights of a checkpoint as they are compressed, on top of safetensors: integers without gaps, scales, "
    "shared tensors once. translate and all other verbs read it. Prints where every byte is."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--checkpoint", required=True, metavar="C.pt", help="a checkpoint of any architecture")
    parser.add_argument("--output", required=True, metavar="C.safetensors", help="the packed one, without optimizer")
    parser.add_argument(
        "--plan", metavar="PLAN",
        help="a YAML file or a built-in plan, such as int4: compress by it, not by the plan of the training "
        "(docs/quantization.md)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Pack, write, and print the table of sizes."""
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq

    import fairseq_compress
    from fairseq_compress.checkpoint.pack import pack
    from fairseq_compress.evaluation.sizes import size_lines
    from fairseq_compress.weights.reading import read_plan

    fairseq_compress.register()
    entries = pack(args.checkpoint, args.output, None if args.plan is None else read_plan(args.plan))
    print(*size_lines(entries), sep="\n")
    print(f"{args.output}: {sum(entry.bytes for entry in entries):,} bytes", file=sys.stderr)
    return 0
