"""``fairseq-compress extract-student``: a checkpoint of dual-vocabulary training -> the student alone."""

import argparse
import sys

HELP = (
    "Write the student of a dual-vocabulary training as an ordinary checkpoint of the task translation, without "
    "teacher and optimizer, with its dictionaries dict.SRC.txt and dict.TGT.txt beside it. fairseq-generate and every "
    "other verb take it as it is."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--checkpoint", required=True, metavar="C.pt", help="of the task dual_vocab_translation")
    parser.add_argument("--output", required=True, metavar="STUDENT.pt", help="the student, without optimizer")
    parser.add_argument(
        "--dictionary", metavar="dict.student.txt",
        help="the student's dictionary (default: the file of that name in the data folder of the training)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Extract, write and tell on stderr what the student is."""
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq

    import fairseq_compress

    fairseq_compress.register()
    from fairseq_compress.checkpoint.average import count_parameters
    from fairseq_compress.checkpoint.extract_student import write_student
    from fairseq_compress.checkpoint.load import dictionaries_of

    state = write_student(args.checkpoint, args.output, args.dictionary)
    model = state["cfg"]["model"]
    entries, _ = dictionaries_of(state["model"])
    print(
        f"{args.output}: {model.get('_name') or model.get('arch')}, {len(entries):,} pieces, "
        f"{count_parameters(state['model']):,} parameters", file=sys.stderr,
    )  # fmt: skip
    return 0
