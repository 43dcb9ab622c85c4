"""``fairseq-compress encode``: text -> subwords, line by line."""

from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.options import option

HELP = (
    "Normalize each line of a text and segment it with a SentencePiece model. Each input line gives one output line "
    "of subwords, separated by spaces."
)
EXAMPLES = (
    "--sentencepiece-model spm.model --input train.en --output subwords/train.en",
    "--sentencepiece-model spm.model --input test.cs --output subwords/test.cs",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    sentencepiece_model: str = common.sentencepiece_model()
    input: str = option(help="text, one sentence a line", metavar="FILE")
    output: str = common.output("the subwords")


def run(args: Options) -> None:
    from fairseq_compress.corpus.segmentation import encode_file

    count = encode_file(args.sentencepiece_model, args.input, args.output)
    common.tell(f"{args.output}: {count} lines")
