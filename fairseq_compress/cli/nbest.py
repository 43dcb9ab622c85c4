"""``fairseq-compress nbest``: a corpus and a teacher -> n-best lists with scores."""

from dataclasses import dataclass, replace
from typing import Any

from fairseq_compress.cli import common
from fairseq_compress.cli.local_ranks import die_with_parent, make_products_reproducible, run_processes
from fairseq_compress.cli.parser import flat_values, part
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.options import option

HELP = (
    "Translate a corpus with one model or an ensemble into an n-best file. The hypotheses are those of "
    "fairseq-generate. Run it in several processes (--processes, torchrun, srun, or RANK and WORLD_SIZE) to share the "
    "work; killed, it resumes at the batch where it stopped. The process that ends last joins the output of all."
)
EXAMPLES = (
    "--checkpoint teacher.pt --data data-bin/en-cs --sentencepiece-model spm.model --source train.en "
    "--output train.nbest",
    "--checkpoint teacher-int8 --sentencepiece-model spm.model --source train.en --output train.nbest --nbest 4",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = common.checkpoint(
        "checkpoint, several checkpoints as an ensemble, or a directory of fairseq-compress export", "A.pt[:B.pt]|DIR"
    )
    source: str = common.source("text to translate, raw or as subwords")
    output: str = common.output("n-best file, and FILE.json")
    data: str | None = common.data()
    source_lang: str | None = common.language("source language; default: the checkpoint's")
    target_lang: str | None = common.language("target language; default: the checkpoint's")
    nbest: int | None = option(None, "hypotheses of each source; default: --beam", range="[1, inf)", metavar="K")
    precision: str = option(
        "float32", "type of the matrix products; int8: in the decoder only, on a CPU",
        choices=("float32", "bfloat16", "int8"),
    )  # fmt: skip
    device: str = common.device()
    max_tokens: int | None = common.number(
        None, "source tokens in a batch, padding included; default: 2000 on a CPU, 16000 on a GPU"
    )
    window: int = common.window("lines")
    long_lines: str = option(
        "refuse", "lines too long for the model: stop before any work, or leave them untranslated (score -inf)",
        choices=("refuse", "skip"),
    )  # fmt: skip
    processes: int = common.processes()
    join_only: bool = common.join_only()
    segmentation: common.SegmentationOptions = part(
        common.SegmentationOptions, "segmentation (with it: raw text in, raw text out; without: subwords)"
    )
    search: SearchOptions = part(SearchOptions, "beam search, as in fairseq-generate")


def run(args: Options) -> int:
    if args.processes != 1 and not args.join_only:
        return run_processes("nbest", args.processes, flat_values(args))
    die_with_parent()
    make_products_reproducible()
    from fairseq_compress import runtimes
    from fairseq_compress.decoding.search_model import MAX_TOKENS
    from fairseq_compress.jobs.nbest import Corpus, NBestJob, NBestOptions
    from fairseq_compress.runtimes.options import RuntimeOptions
    from fairseq_compress.work.files import check_distinct
    from fairseq_compress.work.manifest import sidecar_path
    from fairseq_compress.work.sharded import run_job, shard_from_environment

    segmentation = args.segmentation.given()
    max_tokens = MAX_TOKENS["cpu"] if args.max_tokens is None else args.max_tokens
    options = NBestOptions(args.search, args.nbest, max_tokens, args.window, args.long_lines)
    paths = [args.source, *args.checkpoint.split(":"), *(segmentation.paths() if segmentation else ())]
    check_distinct(paths, [args.output, sidecar_path(args.output)])
    shard = shard_from_environment()
    teacher = runtimes.open(
        args.checkpoint,
        RuntimeOptions(
            vars(args.search), nbest=None, text=segmentation is not None, segmentation=segmentation, device=args.device,
            data=args.data, languages=(args.source_lang, args.target_lang), precision=args.precision,
            max_tokens=args.max_tokens,
        ),
    )  # fmt: skip
    teacher.verify()
    if args.max_tokens is None:
        options = replace(options, max_tokens=MAX_TOKENS[teacher.device])
    corpus = Corpus(args.source, teacher.source_entries, teacher.translator.longest + 1, teacher.segmenter)
    metadata = _metadata(args, options, teacher)
    job = NBestJob(args.output, corpus, options, teacher.translator.translate, metadata)
    counts = run_job(job, shard, args.join_only)
    if counts is None:
        return 0
    note = f", {counts.untranslated:,} left untranslated" if counts.untranslated else ""
    common.tell(f"{args.output}: {counts.hypotheses:,} hypotheses of {counts.sentences:,} lines{note}")
    return 0


def _metadata(args: Options, options: Any, teacher: Any) -> dict[str, Any]:
    """Everything that determines the output."""
    from fairseq_compress.work.files import file_sha256

    segmentation = args.segmentation.given()
    subwords = {"sentencepiece_model": None} if segmentation is None else segmentation.metadata()
    source, target = teacher.languages
    return {
        "work": "nbest 1", "source": file_sha256(args.source), **teacher.identity, **subwords, "source_lang": source,
        "target_lang": target, **options.metadata(), "precision": teacher.precision, "device": teacher.device,
    }  # fmt: skip
