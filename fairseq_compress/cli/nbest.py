"""``fairseq-compress nbest``: a corpus and a teacher -> n-best lists with scores."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fairseq_compress import register
from fairseq_compress.cli import common
from fairseq_compress.cli.local_ranks import die_with_parent, make_products_reproducible, run_processes
from fairseq_compress.cli.parser import flat_values, part
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.options import option

HELP = (
    "Translate a corpus with one model or an ensemble into an n-best file. The hypotheses are those of "
    "fairseq-generate. Run it in several processes (--processes, torchrun, srun, or RANK and WORLD_SIZE) to share the "
    "work; killed, it resumes at the batch where it stopped. The process that ends last joins what all have written."
)
EXAMPLES = (
    "--checkpoint teacher.pt --data data-bin/en-cs --sentencepiece-model spm.model --source train.en "
    "--output train.nbest",
    "--checkpoint teacher-int8 --source train.en --output train.nbest --beam 8 --nbest 4 --processes 4",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the verb."""

    checkpoint: str = common.checkpoint(
        "the model; several are an ensemble; a directory is one of fairseq-compress export", "A.pt[:B.pt]|DIR"
    )
    source: str = common.source("text to translate, as subwords or raw")
    output: str = common.output("n-best file, and FILE.json")
    data: str | None = common.data()
    source_lang: str | None = common.language("default: that of the checkpoint")
    target_lang: str | None = common.language("default: that of the checkpoint")
    nbest: int | None = option(None, "hypotheses of each source; default: --beam", range="[1, inf)", metavar="K")
    precision: str = option(
        "float32", "of the matrix products; int8 only those of the decoder, on a CPU",
        choices=("float32", "bfloat16", "int8"),
    )  # fmt: skip
    device: str = common.device()
    max_tokens: int | None = option(
        None, "of a batch of sources, padding counted; default: 2000 on a CPU, 16000 on a GPU", range="[1, inf)",
        metavar="N",
    )  # fmt: skip
    window: int = common.window("lines")
    long_lines: str = option(
        "refuse", "longer than the model takes: stop before any work, or leave such lines untranslated (score -inf)",
        choices=("refuse", "skip"),
    )  # fmt: skip
    processes: int = common.processes()
    join_only: bool = common.join_only()
    sentencepiece: common.SentencePieceModels = part(
        common.SentencePieceModels, "raw text in, raw text out; without a model both are subwords"
    )
    search: SearchOptions = part(SearchOptions, "search, as in fairseq-generate")


def run(args: Options) -> int:
    """Decode this process's shard, and join the shards when all are there."""
    if args.processes != 1 and not args.join_only:
        return run_processes("nbest", args.processes, flat_values(args))
    die_with_parent()
    make_products_reproducible()
    register()
    from fairseq_compress.jobs.nbest import NBestOptions, decode_share, survey
    from fairseq_compress.jobs.nbest_join import is_complete, join, remove_leftovers
    from fairseq_compress.runtimes.torch.beam_search import MAX_TOKENS
    from fairseq_compress.teachers.loading import pick_device
    from fairseq_compress.work.sharded import ShardedWork, shard_from_environment

    search = args.search
    exported = os.path.isdir(args.checkpoint)
    device = pick_device("cpu" if exported and args.device == "auto" else args.device)
    max_tokens = MAX_TOKENS[device.type] if args.max_tokens is None else args.max_tokens
    options = NBestOptions(search, args.nbest, max_tokens, args.window, args.long_lines)
    _check_files(args)
    shard = shard_from_environment()
    teacher, search_batch = _open_teacher(args, search, device)
    corpus, facts = _prepare(args, options, teacher, device)
    if is_complete(args.output, facts):
        remove_leftovers(args.output, facts)
        common.tell(f"{args.output}: up to date; nothing to do")
        return 0
    if not args.join_only:
        share = survey(corpus, options, shard)
        work = ShardedWork(args.output, facts, shard)
        decode_share(work, corpus, teacher.target, options, search_batch(), share.own)
        if not work.finished_by_all():
            common.tell(f"{args.output}: shard {shard.rank} of {shard.world_size} is done, others are not")
            return 0
    else:
        work = ShardedWork(args.output, facts, shard, join_only=True)
    counts = join(work, args.source, args.output, facts)
    work.remove()
    note = f", {counts.untranslated:,} left untranslated" if counts.untranslated else ""
    common.tell(f"{args.output}: {counts.hypotheses:,} hypotheses of {counts.sentences:,} lines{note}")
    return 0


def _open_teacher(args: Options, search: Any, device: Any) -> tuple[Any, Callable[[], Any]]:
    """The teacher, and what makes its search: that takes time, and is not needed to see that all is done."""
    from fairseq_compress.errors import ConfigError
    from fairseq_compress.jobs.exported import ExportedTeacher
    from fairseq_compress.runtimes.torch.beam_search import BeamSearch
    from fairseq_compress.teachers.loading import load_models

    if not os.path.isdir(args.checkpoint):
        models = load_models(
            args.checkpoint, args.data, source_lang=args.source_lang, target_lang=args.target_lang,
            precision=args.precision, device=device,
        )  # fmt: skip
        return models, lambda: BeamSearch(models, search).search
    for name, value, default in (("--data", args.data, None), ("--precision", args.precision, "float32")):
        if value != default:
            raise ConfigError(f"{name}: requires a checkpoint, {args.checkpoint} is a directory; got {value}")
    if args.device == "cuda":
        raise ConfigError(f"--device: must be cpu for the directory {args.checkpoint}, got cuda")
    teacher = ExportedTeacher(args.checkpoint, search, args.source_lang, args.target_lang)
    return teacher, lambda: teacher.search


def _prepare(args: Options, options: Any, teacher: Any, device: Any) -> tuple[Any, dict[str, Any]]:
    """The corpus, and everything that decides the output's bytes."""
    from fairseq_compress.jobs.nbest import Corpus
    from fairseq_compress.work.files import file_sha256

    models = args.sentencepiece.given()
    segmenter = None if models is None else teacher.open_segmenter(*models)
    corpus = Corpus(args.source, teacher.source, teacher.max_source_positions, segmenter)
    facts_of_models = {
        f"{side}sentencepiece_model": file_sha256(path)
        for side, path in zip(("", "target_"), models or (), strict=False)
        if path is not None
    }
    facts = {
        "work": "nbest 1",
        "source": file_sha256(args.source),
        **teacher.facts,
        "sentencepiece_model": None,
        **facts_of_models,
        "source_lang": teacher.source_lang,
        "target_lang": teacher.target_lang,
        **options.facts(),
        "precision": teacher.precision,
        "device": device.type,
    }
    return corpus, facts


def _check_files(args: Options) -> None:
    from fairseq_compress.corpus.nbest import sidecar_path
    from fairseq_compress.work.files import check_distinct

    models = [path for path in args.sentencepiece.given() or () if path]
    check_distinct([args.source, *args.checkpoint.split(":"), *models], [args.output, sidecar_path(args.output)])
