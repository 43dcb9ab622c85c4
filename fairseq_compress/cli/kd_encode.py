"""``fairseq-compress kd-data encode``: an n-best file of text -> one of subwords."""

from collections.abc import Iterator
from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.cli.parser import part
from fairseq_compress.options import option

HELP = "Segment the hypotheses of an n-best file of text."
EXAMPLES = (
    "--nbest train.nbest --source train.en --pieces subwords/train.en --sentencepiece-model spm.model "
    "--output subwords/train.nbest",
    "--nbest test.nbest --source test.en --pieces subwords/test.en --sentencepiece-model spm.model "
    "--output subwords/test.nbest",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    nbest: str = common.nbest("n-best file of text, with FILE.json")
    source: str = common.source()
    pieces: str = option(help="the source in subwords of the same model", metavar="FILE")
    output: str = common.output("n-best file of subwords, and FILE.json")
    segmentation: common.SegmentationOptions = part(common.SegmentationOptions, "segmentation")

    def problems(self) -> Iterator[str]:
        yield from common.required_segmentation(self.segmentation)


def run(args: Options) -> None:
    from fairseq_compress.corpus.nbest_pieces import encode_nbest

    segmentation = args.segmentation.given()
    assert segmentation is not None
    count = encode_nbest(segmentation, args.nbest, args.source, args.pieces, args.output)
    common.tell(f"{args.output}: {count} lists")
