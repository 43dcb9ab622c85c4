"""``fairseq-compress describe``: what is compressed in a checkpoint, where its bytes are, and what its model costs."""

import argparse

HELP = (
    "Print every weight of a checkpoint with what compresses it and the bytes that it takes when packed; for a packed "
    "checkpoint, the bytes of the file. Then, of the model: parameters, multiply-adds of the products of matrices for "
    "one sentence, and bytes at each precision."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--checkpoint", required=True, metavar="C.pt", help="a checkpoint, packed or not")
    parser.add_argument("--plan", metavar="PLAN", help="a YAML file or a built-in plan: as if compressed by it")
    parser.add_argument("--source-tokens", type=int, default=30, metavar="S", help="of a sentence, with its end symbol")
    parser.add_argument("--target-tokens", type=int, default=30, metavar="T", help="of its translation, likewise")


def run(args: argparse.Namespace) -> int:
    """Print the tables."""
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq

    import fairseq_compress
    from fairseq_compress.checkpoint.pack import pack_model
    from fairseq_compress.checkpoint.packed_file import packed_bytes, size_table
    from fairseq_compress.evaluation.model_cost import cost_lines, plain_model
    from fairseq_compress.evaluation.multiply_adds import check_positive
    from fairseq_compress.evaluation.sizes import size_lines
    from fairseq_compress.weights.reading import read_plan

    check_positive(**{"--source-tokens": args.source_tokens, "--target-tokens": args.target_tokens})
    fairseq_compress.register()
    model = pack_model(args.checkpoint, None if args.plan is None else read_plan(args.plan))
    size = len(packed_bytes(model))
    costs = cost_lines(plain_model(args.checkpoint), args.source_tokens, args.target_tokens, size)
    print(*size_lines(size_table(model, size)), "", *costs, sep="\n")
    return 0
