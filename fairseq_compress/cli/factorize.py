"""``fairseq-compress factorize``: a trained checkpoint -> one with low-rank layers."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairseq_compress.checkpoint.factorize import Factorized

HELP = (
    "Replace linear layers of a trained transformer by products of two smaller ones, their truncated SVD: the closest "
    "weights of that rank. The result is a checkpoint for fairseq's own commands, to be translated with or trained on "
    "(--finetune-from-model). Layers that would not become smaller stay dense. Prints the error of each."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--checkpoint", required=True, metavar="C.pt", help="the trained model, of dense layers")
    parser.add_argument("--output", required=True, metavar="F.pt", help="the factorized one, without optimizer")
    ranks = parser.add_mutually_exclusive_group(required=True)
    ranks.add_argument("--rank", type=int, metavar="R", help="the same for all layers")
    ranks.add_argument(
        "--energy", type=float, metavar="E",
        help="for each layer the smallest rank that keeps this part of the sum of its squared singular values",
    )  # fmt: skip
    ranks.add_argument(
        "--size", type=int, metavar="BYTES",
        help="the ranks that keep most energy in a model whose parameters take at most so many bytes in float32",
    )  # fmt: skip
    parser.add_argument(
        "--modules", nargs="+", metavar="PATTERN",
        help="which linear layers, such as 'encoder.*.fc1'; by default feed-forward networks and projections of "
        "attentions",
    )  # fmt: skip
    parser.add_argument(
        "--embedding-rank", type=int, default=0, metavar="R",
        help="of the embeddings, with the output layer that is tied to them; 0 leaves them as they are",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Factorize, write, and print what became of each layer."""
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq

    import fairseq_compress

    fairseq_compress.register()
    from fairseq_compress.checkpoint.factorize import write_factorized
    from fairseq_compress.surgery.factorize import MODULES, RankChoice

    choice = RankChoice(args.rank, args.energy, args.size)
    factorized = write_factorized(args.checkpoint, args.output, choice, args.modules or MODULES, args.embedding_rank)
    print(*table(factorized), sep="\n")
    print(f"{args.output}: {factorized.after:,} parameters", file=sys.stderr)
    return 0


def table(factorized: "Factorized") -> list[str]:
    """A line for each layer, their sum, and the whole model."""
    lines = [_line(("shape", "rank", "rel. error", "numbers", "before", "layer"))]
    for layer in factorized.layers:
        rank, error = ("dense", "") if layer.rank is None else (str(layer.rank), f"{layer.error:.6f}")
        shared = f" (and {len(layer.names) - 1} that share it)" if len(layer.names) > 1 else ""
        shape = f"{layer.shape[0]} x {layer.shape[1]}"
        lines.append(_line((shape, rank, error, f"{layer.after:,}", f"{layer.before:,}", layer.names[0] + shared)))
    for name, after, before in (
        (
            "these layers",
            sum(layer.after for layer in factorized.layers),
            sum(layer.before for layer in factorized.layers),
        ),
        ("all parameters", factorized.after, factorized.before),
    ):
        lines.append(_line(("", "", "", f"{after:,}", f"{before:,}", f"{name}, {before / after:.2f} times smaller")))
    return lines


def _line(cells: Sequence[str]) -> str:
    shape, rank, error, after, before, name = cells
    return f"{shape:>13}  {rank:>6}  {error:>10}  {after:>13}  {before:>13}  {name}"
