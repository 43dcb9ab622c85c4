"""``fairseq-compress encode-dual``: parallel text -> words in the vocabularies of a teacher and a student."""

import argparse
import sys

HELP = (
    "Encode parallel text once for dual-vocabulary training: each word with its pieces in the teacher's and in the "
    "student's vocabulary. Both models must normalize text alike, and their pieces must not cross white space "
    "(train-vocabulary makes such models)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--source-lang", required=True, metavar="SRC", help="source language, end of the file names")
    parser.add_argument("--target-lang", required=True, metavar="TGT", help="target language, end of the file names")
    for name, what in (("train", "the training text"), ("valid", "validation texts"), ("test", "test texts")):
        parser.add_argument(
            f"--{name}pref", nargs=1 if name == "train" else "+", default=[], metavar="PREFIX",
            help=f"{what}, PREFIX.SRC and PREFIX.TGT" + ("" if name == "train" else f"; becomes {name}, {name}1, ..."),
        )  # fmt: skip
    for name in ("teacher", "student"):
        parser.add_argument(f"--{name}-model", required=True, metavar="P.model", help=f"sentencepiece of the {name}")
        parser.add_argument(f"--{name}-dict", required=True, metavar="P.dict.txt", help=f"dictionary of the {name}")
    parser.add_argument("--output", required=True, metavar="DIR", help="new folder")


def run(args: argparse.Namespace) -> int:
    """Encode and tell the counts on the standard error."""
    from fairseq_compress.corpus.encode_dual import VocabularyFiles, encode_dual

    prefixes = {"train": args.trainpref, "valid": args.validpref, "test": args.testpref}
    meta = encode_dual(
        {f"{name}{number or ''}": prefix for name, list_ in prefixes.items() for number, prefix in enumerate(list_)},
        (args.source_lang, args.target_lang),
        VocabularyFiles(args.teacher_model, args.teacher_dict),
        VocabularyFiles(args.student_model, args.student_dict),
        args.output,
    )
    counts = ", ".join(f"{part} {facts['sentences']:,}" for part, facts in meta.parts.items())
    print(f"{args.output}: {counts} sentences, {meta.types:,} different words", file=sys.stderr)
    for name, unknown in meta.unknown_pieces.items():
        if unknown:
            print(f"{args.output}: {unknown:,} pieces of these are unknown to the {name}'s model", file=sys.stderr)
    return 0
