"""``fairseq-compress cache-teacher``: what teachers say of every target token of a binarized corpus -> files."""

import argparse
import sys
from typing import Any

from fairseq_compress.cli.local_ranks import add_processes_argument, die_with_parent, run_processes

HELP = (
    "Write what teachers say of every target token of a binarized corpus: their k most probable entries, and the mass "
    "that is left, for word_level_kd --teacher-cache. Run it in several processes (--processes, torchrun, srun, or "
    "RANK and WORLD_SIZE) to share the work; killed, it continues at the batch where it stopped. The process that ends "
    "last joins what all have written."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--teacher-path", required=True, metavar="A.pt[:B.pt]", help="the teacher; several are an ensemble"
    )
    parser.add_argument("--data", required=True, metavar="DATA_BIN", help="the binarized corpus (fairseq-preprocess)")
    parser.add_argument("--output", required=True, metavar="DIR", help="the cache; each split is a folder in it")
    parser.add_argument(
        "--splits", nargs="+", default=["train", "valid"], metavar="SPLIT",
        help="train is taken with train1, train2, ..., as training does",
    )  # fmt: skip
    parser.add_argument("--top-k", type=int, default=8, metavar="K", help="entries kept for each target token")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="that of --kd-temperature")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="type of the probabilities")
    parser.add_argument("--max-tokens", type=int, default=8000, metavar="N", help="of a batch, padding counted")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="type of the teacher's matrix products"
    )
    parser.add_argument("--teacher-data", metavar="DIR", help="folder with the teacher's dict.LANG.txt")
    parser.add_argument("--source-lang", metavar="LANG", help="default: that of the teacher")
    parser.add_argument("--target-lang", metavar="LANG", help="default: that of the teacher")
    parser.add_argument(
        "--truncate-source", type=int, metavar="N", help="for training with --truncate-source --max-source-positions N"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the teacher runs")
    add_processes_argument(parser)
    parser.add_argument(
        "--join-only", action="store_true", help="make nothing, only join what the processes of a run have written"
    )


def run(args: argparse.Namespace) -> int:
    """Write this process's share of every split, and join what is finished."""
    if args.processes != 1 and not args.join_only:
        splits = [argparse.Namespace(**vars(args) | {"splits": split}) for split in args.splits]
        return next((status for split in splits if (status := run_processes("cache-teacher", split))), 0)
    die_with_parent()
    import functools
    from pathlib import Path

    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq
    import torch

    import fairseq_compress
    from fairseq_compress.corpus.vocabulary_match import warn_of_unknown
    from fairseq_compress.jobs.teacher_cache import TeacherCacheJob
    from fairseq_compress.teachers.cache_records import CacheOptions
    from fairseq_compress.teachers.frozen import FrozenTeachers
    from fairseq_compress.teachers.loading import pick_device
    from fairseq_compress.teachers.word_ids import count_unknown
    from fairseq_compress.work.sharded import run_job, shard_from_environment

    fairseq_compress.register()
    _check(args)
    device = pick_device(args.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    options = CacheOptions(args.top_k, args.temperature, args.dtype, args.precision, args.max_tokens, device.type)
    shard = shard_from_environment()
    task = _task(args)
    teachers = functools.cache(lambda: FrozenTeachers(args.teacher_path, task, args.teacher_data, False))
    for split in dict.fromkeys(args.splits):
        output = Path(args.output) / split
        dataset, facts = _load(task, split, args.teacher_path)
        if shard.rank == 0:
            for side, language, entries in (
                (dataset.src, task.cfg.source_lang, task.source_dictionary),
                (dataset.tgt, task.cfg.target_lang, task.target_dictionary),
            ):
                warn_of_unknown(f"{args.data}, {split} in {language}", *count_unknown(side, entries))
        meta = run_job(TeacherCacheJob(output, dataset, facts, teachers, options), shard, args.join_only)
        if meta is None:
            continue
        size = meta.tokens * meta.bytes_per_token / 1e6
        unread = f", {meta.unread} sentences longer than {meta.longest} left out" if meta.unread else ""
        print(
            f"{output}: {meta.sentences} sentences, {meta.tokens} target tokens, k={meta.k}, "
            f"{meta.bytes_per_token} bytes a token, {size:.1f} MB{unread}", file=sys.stderr,
        )  # fmt: skip
    return 0


def _check(args: argparse.Namespace) -> None:
    """Tell all numbers out of their range at once."""
    import math

    from fairseq_compress.errors import ConfigError

    rules = (
        (args.top_k < 1, f"--top-k: must be at least 1, got {args.top_k}"),
        (not 0 < args.temperature < math.inf, f"--temperature: must be greater than 0, got {args.temperature}"),
        (args.max_tokens < 1, f"--max-tokens: must be at least 1, got {args.max_tokens}"),
        (
            args.truncate_source is not None and args.truncate_source < 2,
            f"--truncate-source: must be at least 2, got {args.truncate_source}",
        ),
    )
    if problems := [message for broken, message in rules if broken]:
        raise ConfigError("; ".join(problems))


def _task(args: argparse.Namespace) -> Any:
    """fairseq's translation task over the data, with the languages of the teacher unless they are given."""
    from fairseq import utils
    from fairseq.tasks.translation import TranslationConfig, TranslationTask

    from fairseq_compress.checkpoint.load import load_upgraded
    from fairseq_compress.errors import ConfigError, DataError

    source, target = args.source_lang, args.target_lang
    if not (source and target):
        trained = load_upgraded(args.teacher_path.split(":")[0])[1].task
        source, target = source or trained.get("source_lang"), target or trained.get("target_lang")
    if len(utils.split_paths(args.data)) != 1:
        raise ConfigError(f"--data: must be one folder, got {args.data}")
    try:
        return TranslationTask.setup_task(
            TranslationConfig(
                data=args.data, source_lang=source, target_lang=target, train_subset="train", dataset_impl=None,
                required_seq_len_multiple=1, upsample_primary=1, truncate_source=args.truncate_source is not None,
                max_source_positions=args.truncate_source or 1024,
            )
        )  # fmt: skip
    except FileNotFoundError as error:
        raise DataError(f"--data {args.data}: has no dictionary of {source} or {target} ({error})") from None


def _load(task: Any, split: str, teacher_path: str) -> tuple[Any, dict[str, Any]]:
    """A split as training loads it, and the checksums of everything that its records are made from."""
    from fairseq_compress.datasets.teacher_cache import loaded_parts
    from fairseq_compress.errors import DataError
    from fairseq_compress.teachers.cache_checksums import split_facts

    try:
        task.load_dataset(split, combine=split == task.cfg.train_subset)
    except FileNotFoundError as error:
        raise DataError(f"--splits {split}: {error}") from None
    dataset = task.datasets.pop(split)
    if len(dataset) == 0 or dataset.tgt is None:
        raise DataError(f"--splits {split}: must have sentence pairs, {task.cfg.data} has none")
    return dataset, split_facts(task, split, loaded_parts(dataset), teacher_path)
