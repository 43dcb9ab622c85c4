"""``fairseq-compress nbest``: a corpus and a teacher -> n-best lists with scores."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from fairseq_compress.cli.local_ranks import (
    add_processes_argument,
    die_with_parent,
    make_products_reproducible,
    run_processes,
)
from fairseq_compress.cli.sentencepiece_models import add_sentencepiece_arguments, given_models
from fairseq_compress.decoding.search_options import SearchOptions, add_search_arguments, given_search

HELP = (
    "Translate a corpus with one model or an ensemble into an n-best file. The hypotheses are those of "
    "fairseq-generate. Run it in several processes (--processes, torchrun, srun, or RANK and WORLD_SIZE) to share the "
    "work; killed, it continues at the batch where it stopped. The process that ends last joins what all have written."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    files = parser.add_argument_group("files")
    files.add_argument(
        "--checkpoint", required=True, metavar="A.pt[:B.pt]|DIR",
        help="the model; several are an ensemble; a directory is one of fairseq-compress export",
    )  # fmt: skip
    files.add_argument(
        "--source", required=True, metavar="FILE", help="text to translate, as pieces or raw (see below)"
    )
    files.add_argument("--output", required=True, metavar="FILE", help="n-best file, and FILE.json")
    files.add_argument("--data", metavar="DIR", help="folder with dict.LANG.txt; default: beside the checkpoint")
    add_sentencepiece_arguments(files, "take raw text and write raw text; without it both are pieces")
    files.add_argument("--source-lang", metavar="LANG", help="default: that of the checkpoint")
    files.add_argument("--target-lang", metavar="LANG", help="default: that of the checkpoint")
    search = parser.add_argument_group("search, as in fairseq-generate")
    add_search_arguments(search, SearchOptions())
    search.add_argument("--nbest", type=int, metavar="K", help="hypotheses written for each source; default: --beam")
    search.add_argument(
        "--precision", choices=("float32", "bfloat16", "int8"), default="float32",
        help="of the matrix products; int8 only those of the decoder, on a CPU",
    )  # fmt: skip
    work = parser.add_argument_group("work")
    work.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs")
    work.add_argument(
        "--max-tokens", type=int, metavar="N",
        help="of a batch of sources, padding counted; default: 2000 on a CPU, 16000 on a GPU",
    )  # fmt: skip
    work.add_argument(
        "--window", type=int, default=65_536, metavar="N", help="lines that are sorted by length at a time"
    )
    work.add_argument(
        "--long-lines", choices=("refuse", "skip"), default="refuse",
        help="longer than the model takes: stop before any work, or leave such lines untranslated (score -inf)",
    )  # fmt: skip
    add_processes_argument(work)
    work.add_argument("--join-only", action="store_true", help="decode nothing, only join what all processes wrote")


def run(args: argparse.Namespace) -> int:
    """Decode this process's share, and join the shares when all are there."""
    if args.processes != 1 and not args.join_only:
        return run_processes("nbest", args)
    die_with_parent()
    make_products_reproducible()
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq

    import fairseq_compress
    from fairseq_compress.jobs.nbest import NBestJob, NBestOptions
    from fairseq_compress.runtimes.torch.beam_search import MAX_TOKENS
    from fairseq_compress.teachers.loading import pick_device
    from fairseq_compress.work.sharded import run_job, shard_from_environment

    fairseq_compress.register()
    search = SearchOptions(**given_search(args))
    exported = os.path.isdir(args.checkpoint)
    device = pick_device("cpu" if exported and args.device == "auto" else args.device)
    max_tokens = MAX_TOKENS[device.type] if args.max_tokens is None else args.max_tokens
    options = NBestOptions(search, args.nbest, max_tokens, args.window, args.long_lines)
    _check_files(args)
    shard = shard_from_environment()
    teacher, open_search = _open_teacher(args, search, device)
    corpus, metadata = _prepare(args, options, teacher, device)
    job = NBestJob(args.output, corpus, teacher.target, options, open_search, metadata)
    counts = run_job(job, shard, args.join_only)
    if counts is None:
        return 0
    note = f", {counts.untranslated:,} left untranslated" if counts.untranslated else ""
    print(f"{args.output}: {counts.hypotheses:,} hypotheses of {counts.sentences:,} lines{note}", file=sys.stderr)
    return 0


def _open_teacher(args: argparse.Namespace, search: Any, device: Any) -> tuple[Any, Callable[[], Any]]:
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
    for option, value, default in (("--data", args.data, None), ("--precision", args.precision, "float32")):
        if value != default:
            raise ConfigError(f"{option}: requires a checkpoint, {args.checkpoint} is a directory; got {value}")
    if args.device == "cuda":
        raise ConfigError(f"--device: must be cpu for the directory {args.checkpoint}, got cuda")
    teacher = ExportedTeacher(args.checkpoint, search, args.source_lang, args.target_lang)
    return teacher, lambda: teacher.search


def _prepare(args: argparse.Namespace, options: Any, teacher: Any, device: Any) -> tuple[Any, dict[str, Any]]:
    """The corpus, and everything that decides the output's bytes."""
    from fairseq_compress.jobs.nbest import Corpus
    from fairseq_compress.work.files import file_sha256

    models = given_models(args)
    segmenter = None if models is None else teacher.open_segmenter(*models)
    corpus = Corpus(args.source, teacher.source, teacher.max_source_positions, segmenter)
    checksums = {
        f"{side}sentencepiece_model": file_sha256(path)
        for side, path in zip(("", "target_"), models or (), strict=False)
        if path is not None
    }
    metadata = {
        "work": "nbest 1",
        "source": file_sha256(args.source),
        **teacher.facts,
        "sentencepiece_model": None,
        **checksums,
        "source_lang": teacher.source_lang,
        "target_lang": teacher.target_lang,
        **options.metadata(),
        "precision": teacher.precision,
        "device": device.type,
    }
    return corpus, metadata


def _check_files(args: argparse.Namespace) -> None:
    from fairseq_compress.work.files import check_distinct
    from fairseq_compress.work.manifest import sidecar_path

    models = [path for path in given_models(args) or () if path]
    check_distinct([args.source, *args.checkpoint.split(":"), *models], [args.output, sidecar_path(args.output)])
