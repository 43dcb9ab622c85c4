"""``fairseq-compress factorize``: a trained checkpoint -> one with low-rank layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairseq_compress import register
from fairseq_compress.cli import common
from fairseq_compress.options import option

if TYPE_CHECKING:
    from fairseq_compress.checkpoint.factorize import Factorized

HELP = (
    "Replace linear layers of a trained transformer by low-rank layers, the truncated SVD of their weights. The result "
    "is a checkpoint for fairseq's commands; fine-tune it with --finetune-from-model. Layers that would not become "
    "smaller stay dense. Prints rank and relative error of each layer. One of --rank, --energy and --size is required."
)
EXAMPLES = ("student.pt low-rank.pt --rank 64", "student.pt low-rank.pt --size 20000000 --modules 'encoder.*.fc1'")
POSITIONAL = ("checkpoint", "output")


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = common.checkpoint("the trained model, with dense layers")
    output: str = common.output("the low-rank checkpoint, without optimizer state", "F.pt")
    rank: int | None = option(None, "rank of all layers", range="[1, inf)", metavar="R")
    energy: float | None = option(
        None, "for each layer, the smallest rank that keeps this fraction of the sum of squared singular values",
        range="(0, 1]", metavar="E",
    )  # fmt: skip
    size: int | None = option(
        None,
        "choose ranks for a model of at most this size in float32, greedily by energy kept for each byte",
        metavar="BYTES",
    )
    modules: tuple[str, ...] | None = option(
        None, "patterns of linear layers; default: feed-forward networks and attention projections", metavar="PATTERN"
    )
    embedding_rank: int = option(
        0, "rank of the embeddings and of the output layer tied to them; 0: dense", range="[0, inf)", metavar="R"
    )


def run(args: Options) -> None:
    register()
    from fairseq_compress.checkpoint.factorize import write_factorized
    from fairseq_compress.surgery.factorize import MODULES, RankChoice

    choice = RankChoice(args.rank, args.energy, args.size)
    modules = args.modules or MODULES
    factorized = write_factorized(args.checkpoint, args.output, choice, modules, args.embedding_rank)
    print(*table(factorized), sep="\n")
    common.tell(f"{args.output}: {factorized.after:,} parameters")


def table(factorized: "Factorized") -> list[str]:
    """A line for each layer, their sum, and the whole model."""
    lines = [_line(("shape", "rank", "rel. error", "numbers", "before", "layer"))]
    for layer in factorized.layers:
        rank, error = ("dense", "") if layer.rank is None else (str(layer.rank), f"{layer.error:.6f}")
        shared = f" (and {len(layer.names) - 1} that share it)" if len(layer.names) > 1 else ""
        shape = f"{layer.shape[0]} x {layer.shape[1]}"
        lines.append(_line((shape, rank, error, f"{layer.after:,}", f"{layer.before:,}", layer.names[0] + shared)))
    after, before = (sum(getattr(layer, key) for layer in factorized.layers) for key in ("after", "before"))
    sums = (("these layers", after, before), ("all parameters", factorized.after, factorized.before))
    for name, after, before in sums:
        lines.append(_line(("", "", "", f"{after:,}", f"{before:,}", f"{name}, {before / after:.2f} times smaller")))
    return lines


def _line(cells: Sequence[str]) -> str:
    shape, rank, error, after, before, name = cells
    return f"{shape:>13}  {rank:>6}  {error:>10}  {after:>13}  {before:>13}  {name}"
