"""``fairseq-compress train-vocabulary``: text -> SentencePiece model and fairseq dictionary."""

from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.options import option

HELP = (
    "Train a SentencePiece vocabulary (byte-pair encoding with byte fallback) on all files together and write "
    "PREFIX.model, PREFIX.vocab and PREFIX.dict.txt, the joined fairseq dictionary. The same text and options give "
    "the same bytes."
)
EXAMPLES = (
    "--input train.en train.cs --vocab-size 8000 --output spm",
    "--input train.en train.cs --vocab-size 32000 --input-sentence-size 5000000 --output spm",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    input: tuple[str, ...] = option(help="text files of both languages", metavar="FILE")
    vocab_size: int = option(
        help="size of the vocabulary, including 3 control symbols and 256 bytes", range="[1, inf)", metavar="N"
    )
    output: str = common.output("prefix of the output files", "PREFIX")
    model_type: str = option("bpe", "byte-pair encoding or unigram language model", choices=("bpe", "unigram"))
    character_coverage: float = option(
        1.0, "fraction of the characters in the text that get a subword of their own", range="[0.98, 1]"
    )
    seed: int = option(1, "seed of the sample of --input-sentence-size")
    input_sentence_size: int = option(0, "train on N random lines; 0 means all", range="[0, inf)", metavar="N")


def run(args: Options) -> None:
    from fairseq_compress.corpus.vocabulary import LineCounts, VocabularySettings, build_vocabulary

    settings = VocabularySettings(
        size=args.vocab_size, model_type=args.model_type, character_coverage=args.character_coverage, seed=args.seed,
        input_sentence_size=args.input_sentence_size,
    )  # fmt: skip
    counts = LineCounts()
    entries = build_vocabulary(args.input, args.output, settings, counts)
    common.tell(f"{args.output}.dict.txt: {entries} entries (fairseq adds 4 symbols)")
    if note := counts.summary():
        common.tell(f"{args.output}: {note}")
