"""``fairseq-compress encode``: text -> subwords, line by line."""

from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.options import option

HELP = (
    "Normalize each line of a text and segment it by a SentencePiece model: subwords separated by spaces, one line "
    "in, one line out."
)
EXAMPLES = (
    "--sentencepiece-model spm.model --input train.en --output subwords/train.en",
    "--sentencepiece-model spm.model --input test.cs --output subwords/test.cs",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    sentencepiece_model: str = common.sentencepiece_model()
    input: str = option(help="text, one sentence a line", metavar="FILE")
    output: str = common.output("subwords")


def run(args: Options) -> None:
    from fairseq_compress.corpus.segmentation import encode_file

    count = encode_file(args.sentencepiece_model, args.input, args.output)
    common.tell(f"{args.output}: {count} lines")
