"""``fairseq-compress describe``: what is compressed in a checkpoint, where its bytes are, and what its model costs."""

from dataclasses import dataclass

from fairseq_compress import register
from fairseq_compress.cli import common
from fairseq_compress.options import option

HELP = (
    "Print every weight of a checkpoint with its compression and its size in a packed file. Then print for the model: "
    "parameters, multiply-adds of the matrix products for one sentence, and bytes at each precision. With --plan, show "
    "the sizes for that plan; nothing is written."
)
EXAMPLES = ("student.pt", "student.pt --plan int4 --source-tokens 20 --target-tokens 20")
POSITIONAL = ("checkpoint",)


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = common.checkpoint()
    plan: str | None = option(None, "show the sizes for this plan, a YAML file or a built-in plan", metavar="PLAN")
    source_tokens: int = option(30, "length of the source sentence, EOS included", range="[1, inf)", metavar="S")
    target_tokens: int = option(30, "length of its translation, EOS included", range="[1, inf)", metavar="T")


def run(args: Options) -> None:
    register()
    from fairseq_compress.checkpoint.pack import pack_model
    from fairseq_compress.checkpoint.packed_file import packed_bytes, size_table
    from fairseq_compress.evaluation.model_cost import cost_lines, plain_model
    from fairseq_compress.evaluation.sizes import size_lines
    from fairseq_compress.weights.reading import read_plan

    model = pack_model(args.checkpoint, None if args.plan is None else read_plan(args.plan))
    size = len(packed_bytes(model))
    costs = cost_lines(plain_model(args.checkpoint), args.source_tokens, args.target_tokens, size)
    print(*size_lines(size_table(model, size)), "", *costs, sep="\n")
