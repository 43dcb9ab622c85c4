"""``fairseq-compress train-vocabulary``: text -> sentencepiece model and fairseq dictionary."""

import argparse
import sys

HELP = (
    "Train a sentencepiece vocabulary (byte-pair encoding with a fallback to bytes) on all the files together and "
    "write PREFIX.model, PREFIX.vocab and PREFIX.dict.txt, the joined fairseq dictionary. "
    "The same text and options give the same bytes."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--input", nargs="+", required=True, metavar="FILE", help="text of both languages")
    parser.add_argument("--vocab-size", type=int, required=True, metavar="N", help="pieces, with 3 symbols, 256 bytes")
    parser.add_argument("--output-prefix", required=True, metavar="PREFIX", help="start of the names of the outputs")
    parser.add_argument("--model-type", choices=("bpe", "unigram"), default="bpe", help="kind of subwords")
    parser.add_argument("--character-coverage", type=float, default=1.0, help="share of characters that get a piece")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample of --input-sentence-size")
    parser.add_argument(
        "--input-sentence-size", type=int, default=0, metavar="N", help="train on N random lines; 0 takes all"
    )


def run(args: argparse.Namespace) -> int:
    """Train, write the three files and tell the size on the standard error."""
    from fairseq_compress.corpus.training_lines import LineCounts
    from fairseq_compress.corpus.vocabulary import VocabularySettings, build_vocabulary

    settings = VocabularySettings(
        size=args.vocab_size,
        model_type=args.model_type,
        character_coverage=args.character_coverage,
        seed=args.seed,
        input_sentence_size=args.input_sentence_size,
    )
    counts = LineCounts()
    entries = build_vocabulary(args.input, args.output_prefix, settings, counts)
    print(f"{args.output_prefix}.dict.txt: {entries} entries (fairseq adds 4 symbols)", file=sys.stderr)
    if note := counts.summary():
        print(f"{args.output_prefix}: {note}", file=sys.stderr)
    return 0
