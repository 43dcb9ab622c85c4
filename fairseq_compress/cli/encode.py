"""``fairseq-compress encode``: text -> subwords, line by line."""

from collections.abc import Iterator
from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.options import option

HELP = (
    "Segment each line of a text. For SentencePiece it is normalized before. Each input line gives one output line "
    "of subwords, separated by spaces."
)
EXAMPLES = (
    "--sentencepiece-model spm.model --input train.en --output subwords/train.en",
    "--segmentation fastbpe --bpe-codes bpecodes --tokenizer moses --lang en --input test.en --output subwords/test.en",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    input: str = option(help="text, one sentence a line", metavar="FILE")
    output: str = common.output("the subwords")
    lang: str | None = common.language("language of the text, for --tokenizer moses")
    segmentation: common.SegmentationOptions = part(common.SegmentationOptions, "segmentation")

    def problems(self) -> Iterator[str]:
        yield from common.required_segmentation(self.segmentation)


def run(args: Options) -> None:
    from fairseq_compress.corpus.segmentation.text_files import encode_file

    segmentation = args.segmentation.given()
    assert segmentation is not None
    count = encode_file(segmentation.of_one_language(args.lang), args.input, args.output)
    common.tell(f"{args.output}: {count} lines")
