"""``fairseq-compress encode-dual``: parallel text -> words in the vocabularies of a teacher and a student."""

from dataclasses import dataclass

from fairseq_compress.cli import common
from fairseq_compress.options import option

HELP = (
    "Encode parallel text for dual-vocabulary training: each word in the teacher's and in the student's vocabulary. "
    "Both SentencePiece models must normalize text alike, and their subwords must not cross white space "
    "(train-vocabulary makes such models)."
)
EXAMPLES = tuple(
    f"--source-lang en --target-lang cs --trainpref train{more} --teacher-sentencepiece-model spm.model "
    "--teacher-dictionary spm.dict.txt --student-sentencepiece-model small.model --student-dictionary small.dict.txt "
    "--output data-dual"
    for more in ("", " --validpref valid --testpref test2016 test2017")
)


def _dictionary(of: str) -> str:
    return option(help=f"fairseq dictionary of the {of}", metavar="P.dict.txt")


@dataclass(frozen=True, kw_only=True)
class Options:
    source_lang: str = common.language("source language, the suffix of its files", required=True)
    target_lang: str = common.language("target language, the suffix of its files", required=True)
    trainpref: str | None = option(None, "training text: PREFIX.SRC and PREFIX.TGT", metavar="PREFIX")
    validpref: tuple[str, ...] = option((), "validation texts, stored as valid, valid1, ...", metavar="PREFIX")
    testpref: tuple[str, ...] = option((), "test texts, stored as test, test1, ...", metavar="PREFIX")
    teacher_sentencepiece_model: str = common.sentencepiece_model("SentencePiece model of the teacher")
    teacher_dictionary: str = _dictionary("teacher")
    student_sentencepiece_model: str = common.sentencepiece_model("SentencePiece model of the student")
    student_dictionary: str = _dictionary("student")
    output: str = common.output("new folder", "DIR")


def run(args: Options) -> None:
    from fairseq_compress.corpus.encode_dual import VocabularyFiles, encode_dual

    prefixes = {"train": [args.trainpref] if args.trainpref else []}
    prefixes |= {"valid": list(args.validpref), "test": list(args.testpref)}
    meta = encode_dual(
        {f"{name}{number or ''}": prefix for name, list_ in prefixes.items() for number, prefix in enumerate(list_)},
        (args.source_lang, args.target_lang),
        VocabularyFiles(args.teacher_sentencepiece_model, args.teacher_dictionary),
        VocabularyFiles(args.student_sentencepiece_model, args.student_dictionary),
        args.output,
    )
    counts = ", ".join(f"{part} {facts['sentences']:,}" for part, facts in meta.parts.items())
    common.tell(f"{args.output}: {counts} sentences, {meta.types:,} different words")
    for name, unknown in meta.unknown_pieces.items():
        if unknown:
            common.tell(f"{args.output}: {unknown:,} subwords of these are unknown to the {name}'s model")
