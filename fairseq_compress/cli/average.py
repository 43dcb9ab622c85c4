"""``fairseq-compress average``: several checkpoints of one training run -> their mean."""

import argparse
import sys

HELP = "average the weights of several checkpoints into one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--inputs", nargs="+", metavar="C.pt", help="the checkpoints to average, in any order")
    which.add_argument("--checkpoint-dir", metavar="DIR", help="take the newest --last N checkpoints of this directory")
    parser.add_argument("--last", type=int, metavar="N", help="with --checkpoint-dir: how many checkpoints")
    parser.add_argument(
        "--by",
        choices=("epoch", "update"),
        help="with --checkpoint-dir: checkpointE.pt by epoch (the default), or checkpoint_E_U.pt by update;"
        " best, last (but for --include-last), crash and unfinished files are never taken",
    )
    parser.add_argument(
        "--include-last",
        action="store_true",
        help="with --checkpoint-dir: checkpoint_last.pt is one of the N where training ended after the others",
    )
    parser.add_argument("--output", required=True, metavar="AVG.pt", help="the averaged checkpoint, without optimizer")


def run(args: argparse.Namespace) -> int:
    """Average, write the checkpoint and tell on stderr what it was made of."""
    from fairseq_compress.checkpoint.average import select_checkpoints, write_average
    from fairseq_compress.errors import ConfigError

    if args.checkpoint_dir is None:
        if args.last is not None or args.by is not None or args.include_last:
            raise ConfigError("--last, --by, --include-last: require --checkpoint-dir, got --inputs")
        paths = args.inputs
    else:
        if args.last is None:
            raise ConfigError("--checkpoint-dir needs --last N, the number of checkpoints to average")
        paths = select_checkpoints(args.checkpoint_dir, args.last, args.by or "epoch", args.include_last)
    state = write_average(paths, args.output, progress=True)
    sources = ", ".join(f"{s['name']} ({s['num_updates']} updates)" for s in state["extra_state"]["averaged_from"])
    print(f"{args.output}: the average of {sources}", file=sys.stderr)
    return 0
