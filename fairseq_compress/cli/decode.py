"""``fairseq-compress decode``: subwords -> text, line by line."""

from collections.abc import Iterator
from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.options import option

HELP = "Join the subwords of each line to text, byte fallback included. Each input line gives one output line."
EXAMPLES = (
    "--sentencepiece-model spm.model --input subwords/test.cs --output test.cs",
    "--segmentation fastbpe --bpe-codes bpecodes --tokenizer moses --lang cs --input hypotheses --output hypotheses.cs",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    input: str = option(help="subwords, separated by spaces", metavar="FILE")
    output: str = common.output("the text")
    lang: str | None = common.language("language of the text, for --tokenizer moses")
    segmentation: common.SegmentationOptions = part(common.SegmentationOptions, "segmentation")

    def problems(self) -> Iterator[str]:
        yield from common.required_segmentation(self.segmentation)


def run(args: Options) -> None:
    from fairseq_compress.corpus.segmentation.text_files import decode_file

    segmentation = args.segmentation.given()
    assert segmentation is not None
    count = decode_file(segmentation.of_one_language(args.lang), args.input, args.output)
    common.tell(f"{args.output}: {count} lines")
