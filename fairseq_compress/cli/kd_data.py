"""``fairseq-compress kd-data``: n-best file -> a binarized folder to train a student on."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fairseq_compress import register
from fairseq_compress.cli import common, kd_binarize, kd_encode, kd_score, kd_select
from fairseq_compress.cli.parser import part
from fairseq_compress.corpus.selection_rules import SelectionRules
from fairseq_compress.options import option

HELP = (
    "Make training data for a student from a teacher's n-best file of text (sequence-level distillation, "
    "arXiv:1606.07947): segment it, score it with a reverse model (with --drop-worst), select, and binarize; with "
    "--mode k-best also all hypotheses, for sequence_level_kd. Validation and test sets are copied from --data. The "
    "intermediate files are in OUTPUT.steps. Each step can run alone: kd-data encode, score, select, binarize; and "
    "collect, for the output of fairseq-generate."
)
EXAMPLES = (
    "--mode best --nbest train.nbest --source train.en --sentencepiece-model spm.model --data data-bin/en-cs "
    "--output data-bin/kd",
    "--mode interpolate --nbest train.nbest --source train.en --reference train.cs --sentencepiece-model spm.model "
    "--data data-bin/en-cs --output data-bin/kd --drop-worst 0.1 --reverse-checkpoint cs-en.pt",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    nbest: str = common.nbest("n-best file of text, with FILE.json")
    source: str = common.source()
    data: str = common.data("the binarized corpus, for dictionaries, validation and test sets", required=True)
    output: str = common.output("new data folder", "DIR")
    reference: str | None = common.reference("reference translations, as text, for --mode interpolate", required=False)
    reverse_checkpoint: str | None = option(
        None, "model of the reverse direction (target to source), with the same subwords",
        metavar="R.pt[:S.pt]",
    )  # fmt: skip
    processes: int = common.number(1, "processes that select and binarize")
    segmentation: common.SegmentationOptions = part(common.SegmentationOptions, "subwords of the training text")
    rules: SelectionRules = part(SelectionRules, "selection")

    def problems(self) -> Iterator[str]:
        yield from common.required_segmentation(self.segmentation)
        if (self.reverse_checkpoint is None) != (self.rules.drop_worst == 0):
            yield "--reverse-checkpoint: must be given with --drop-worst above 0, and not without"
        if (self.reference is None) != (self.rules.mode != "interpolate"):
            yield "--reference: must be given with --mode interpolate, and not without"
        if os.path.exists(self.output):
            yield f"--output: {self.output} exists; choose another name or remove it"


def run(args: Options) -> None:
    from fairseq_compress.corpus.segmentation.text_files import encode_file
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.work.sharded import shard_from_environment

    if (shards := shard_from_environment().world_size) > 1:
        raise ConfigError(f"kd-data: must run in one process, got {shards}; its steps can run in several")
    source_lang, target_lang = kd_binarize.languages_of(args.data)
    steps = Path(f"{args.output}.steps")
    steps.mkdir(parents=True, exist_ok=True)
    pieces, nbest, scores, chosen = (str(steps / name) for name in ("source", "nbest", "scores", "train.nbest"))
    source, target = (str(steps / f"train.{language}") for language in (source_lang, target_lang))
    segmentation = args.segmentation.given()
    assert segmentation is not None
    encode_file(segmentation.open((source_lang, target_lang)), args.source, pieces)
    kd_encode.run(
        kd_encode.Options(
            nbest=args.nbest, source=args.source, pieces=pieces, output=nbest, segmentation=args.segmentation
        )
    )
    if args.reverse_checkpoint is not None:
        reverse = kd_score.Options(
            checkpoint=args.reverse_checkpoint, nbest=nbest, source=pieces, output=scores, data=args.data,
            segmentation=common.SegmentationOptions(),
        )  # fmt: skip
        kd_score.run(reverse)
    kd_select.run(
        kd_select.Options(
            nbest=nbest, source=pieces, reference=args.reference, segmentation=args.segmentation,
            reverse_scores=scores if args.reverse_checkpoint else None, output_source=source, output_target=target,
            output_nbest=chosen if args.rules.mode == "k-best" else None, report=str(steps / "report.json"),
            processes=args.processes, rules=args.rules,
        )
    )  # fmt: skip
    folder = f"{args.output}.new"
    _binarize(args, (source_lang, target_lang), str(steps / "train"), folder)
    if args.rules.mode == "k-best":
        kd_binarize.run(
            kd_binarize.Options(
                nbest=chosen, data=folder, source=source, source_lang=source_lang, target_lang=target_lang
            )
        )
    os.rename(folder, args.output)
    common.tell(f"{args.output}: done; {steps} may be removed")


def _binarize(args: Options, languages: tuple[str, str], prefix: str, folder: str) -> None:
    """Binarize the selected text by fairseq-preprocess, and copy validation and test sets."""
    register()
    from fairseq import options
    from fairseq_cli import preprocess

    shutil.rmtree(folder, ignore_errors=True)
    words = ["--trainpref", prefix, "--destdir", folder, "--workers", str(args.processes)]
    for side, flags, language in zip(("source", "target"), ("--srcdict", "--tgtdict"), languages, strict=True):
        words += [f"--{side}-lang", language, flags, os.path.join(args.data, f"dict.{language}.txt")]
    preprocess.main(options.get_preprocessing_parser().parse_args(words))
    for path in Path(args.data).iterdir():
        if path.name.startswith(("valid", "test")):
            shutil.copy(path, folder)
