"""``fairseq-compress extract-student``: a checkpoint of dual-vocabulary training -> the student alone."""

from dataclasses import dataclass

from fairseq_compress import register
from fairseq_compress.cli import common
from fairseq_compress.options import option

HELP = (
    "Write the student of a dual-vocabulary training as an ordinary checkpoint of the task translation, without "
    "teacher and optimizer, with dict.SRC.txt and dict.TGT.txt next to it, for fairseq-generate and all other verbs."
)
EXAMPLES = (
    "checkpoints/checkpoint_best.pt student/student.pt",
    "averaged.pt student/student.pt --dictionary data-dual/dict.student.txt",
)
POSITIONAL = ("checkpoint", "output")


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = common.checkpoint("a checkpoint of the task dual_vocab_translation")
    output: str = common.output("checkpoint of the student, without optimizer state", "STUDENT.pt")
    dictionary: str | None = option(
        None, "the student's dictionary; default: in the data folder of the training", metavar="dict.student.txt"
    )


def run(args: Options) -> None:
    register()
    from fairseq_compress.checkpoint.average import count_parameters
    from fairseq_compress.checkpoint.extract_student import write_student
    from fairseq_compress.checkpoint.load import dictionaries_of

    state = write_student(args.checkpoint, args.output, args.dictionary)
    model = state["cfg"]["model"]
    entries, _ = dictionaries_of(state["model"])
    common.tell(
        f"{args.output}: {model.get('_name') or model.get('arch')}, {len(entries):,} subwords, "
        f"{count_parameters(state['model']):,} parameters"
    )
