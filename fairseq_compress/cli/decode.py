"""``fairseq-compress decode``: subwords -> text, line by line."""

from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.options import option

HELP = "Join the subwords of each line to text, byte fallback included. Each input line gives one output line."
EXAMPLES = (
    "--sentencepiece-model spm.model --input subwords/test.cs --output test.cs",
    "--sentencepiece-model spm.model --input hypotheses.subwords --output hypotheses.cs",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    sentencepiece_model: str = common.sentencepiece_model()
    input: str = option(help="subwords, separated by spaces", metavar="FILE")
    output: str = common.output("the text")


def run(args: Options) -> None:
    from fairseq_compress.corpus.segmentation import decode_file

    count = decode_file(args.sentencepiece_model, args.input, args.output)
    common.tell(f"{args.output}: {count} lines")
