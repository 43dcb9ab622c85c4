"""``fairseq-compress kd-data encode``: an n-best file of text -> one of subwords."""

from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.options import option

HELP = "Segment the hypotheses of an n-best file of text with a SentencePiece model."
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
    sentencepiece_model: str = common.sentencepiece_model()
    output: str = common.output("n-best file of subwords, and FILE.json")


def run(args: Options) -> None:
    from fairseq_compress.corpus.nbest_pieces import encode_nbest

    count = encode_nbest(args.sentencepiece_model, args.nbest, args.source, args.pieces, args.output)
    common.tell(f"{args.output}: {count} lists")
