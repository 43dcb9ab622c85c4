"""``fairseq-compress nbest``: a corpus and a teacher -> n-best lists with scores."""

import argparse
import sys
from dataclasses import replace
from typing import Any

from fairseq_compress.cli.local_ranks import (
    add_processes_argument,
    die_with_parent,
    make_products_reproducible,
    run_processes,
)
from fairseq_compress.cli.sentencepiece_models import add_sentencepiece_arguments, given_models
from fairseq_compress.decoding.search_options import SearchOptions, given_search
from fairseq_compress.options import add_arguments as add_options

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
    add_options(search, SearchOptions)
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
    from fairseq_compress import runtimes
    from fairseq_compress.decoding.search_model import MAX_TOKENS
    from fairseq_compress.jobs.nbest import Corpus, NBestJob, NBestOptions
    from fairseq_compress.runtimes.opened import RuntimeOptions
    from fairseq_compress.work.sharded import run_job, shard_from_environment

    search, models = given_search(args), given_models(args)
    max_tokens = MAX_TOKENS["cpu"] if args.max_tokens is None else args.max_tokens
    options = NBestOptions(SearchOptions(**search), args.nbest, max_tokens, args.window, args.long_lines)
    _check_files(args)
    shard = shard_from_environment()
    teacher = runtimes.open(
        args.checkpoint,
        RuntimeOptions(
            search, nbest=None, text=models is not None, sentencepiece=models, device=args.device, data=args.data,
            languages=(args.source_lang, args.target_lang), precision=args.precision, max_tokens=args.max_tokens,
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
    print(f"{args.output}: {counts.hypotheses:,} hypotheses of {counts.sentences:,} lines{note}", file=sys.stderr)
    return 0


def _metadata(args: argparse.Namespace, options: Any, teacher: Any) -> dict[str, Any]:
    """Everything that decides the output's bytes."""
    from fairseq_compress.work.files import file_sha256

    checksums = {
        f"{side}sentencepiece_model": file_sha256(path)
        for side, path in zip(("", "target_"), given_models(args) or (), strict=False)
        if path is not None
    }
    return {
        "work": "nbest 1",
        "source": file_sha256(args.source),
        **teacher.identity,
        "sentencepiece_model": None,
        **checksums,
        "source_lang": teacher.languages[0],
        "target_lang": teacher.languages[1],
        **options.metadata(),
        "precision": teacher.precision,
        "device": teacher.device,
    }


def _check_files(args: argparse.Namespace) -> None:
    from fairseq_compress.work.files import check_distinct
    from fairseq_compress.work.manifest import sidecar_path

    models = [path for path in given_models(args) or () if path]
    check_distinct([args.source, *args.checkpoint.split(":"), *models], [args.output, sidecar_path(args.output)])
