"""``fairseq-compress describe``: what is compressed in a checkpoint, and where its bytes are."""

import argparse

HELP = (
    "Print every weight of a checkpoint with what compresses it and the bytes that it takes when packed; for a packed "
    "checkpoint, the bytes of the file."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--checkpoint", required=True, metavar="C.pt", help="a checkpoint, packed or not")
    parser.add_argument("--plan", metavar="PLAN.yaml", help="as if it had been compressed so")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq

    import fairseq_compress
    from fairseq_compress.checkpoint.pack import pack_model
    from fairseq_compress.checkpoint.packed_file import packed_bytes, size_table
    from fairseq_compress.evaluation.sizes import size_lines
    from fairseq_compress.plans.reading import read_plan

    fairseq_compress.register()
    model = pack_model(args.checkpoint, None if args.plan is None else read_plan(args.plan))
    print(*size_lines(size_table(model, len(packed_bytes(model)))), sep="\n")
    return 0
