"""``fairseq-compress materialize``: a checkpoint of ours -> one of fairseq's plain ``transformer``."""

import argparse
import sys

HELP = (
    "Write a checkpoint as one of fairseq's plain transformer: dense weights, and a configuration that stock fairseq "
    "and its converters load without --user-dir. It is written only if it computes what the original does."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--checkpoint", required=True, metavar="C.pt", help="a checkpoint of any architecture of ours")
    parser.add_argument("--output", required=True, metavar="PLAIN.pt", help="the plain one, without optimizer")


def run(args: argparse.Namespace) -> int:
    """Materialize, write and tell on stderr what it is."""
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq

    import fairseq_compress
    from fairseq_compress.checkpoint.average import count_parameters
    from fairseq_compress.checkpoint.materialize import write_materialized

    fairseq_compress.register()
    state = write_materialized(args.checkpoint, args.output)
    values = state["cfg"]["model"]
    print(
        f"{args.output}: transformer, {values['encoder_layers']}+{values['decoder_layers']} layers, width "
        f"{values['encoder_embed_dim']}, {count_parameters(state['model']):,} parameters", file=sys.stderr,
    )  # fmt: skip
    return 0
