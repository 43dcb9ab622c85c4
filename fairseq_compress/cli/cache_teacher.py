"""``fairseq-compress cache-teacher``: store the teachers' output for every target token of a binarized corpus."""

from dataclasses import dataclass, replace
from typing import Any

from fairseq_compress import register
from fairseq_compress.cli import common
from fairseq_compress.cli.local_ranks import die_with_parent, run_processes
from fairseq_compress.cli.parser import flat_values
from fairseq_compress.options import option

HELP = (
    "Store the teacher's distribution for every target token of a binarized corpus: the k most probable entries and "
    "the tail mass, for --criterion word_level_kd --teacher-cache. Run it in several processes (--processes, "
    "torchrun, srun, or RANK and WORLD_SIZE) to share the work; killed, it resumes at the batch where it stopped. The "
    "process that ends last joins the output of all."
)
EXAMPLES = (
    "--checkpoint teacher.pt --data data-bin/en-cs --output cache --top-k 8",
    "--checkpoint a.pt:b.pt --data data-bin/kd --splits train --output cache-kd --temperature 2 --processes 4",
)
SPELLING = {"--teacher-path": "--checkpoint"}  # as trainings call it, in messages that they share


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = common.checkpoint("the teacher, or several as an ensemble", "A.pt[:B.pt]")
    data: str = common.data("the binarized corpus", required=True)
    output: str = common.output("the cache, with one folder for each split", "DIR")
    splits: tuple[str, ...] = option(
        ("train", "valid"), "splits to store; train includes train1, train2, ..., as in training", metavar="SPLIT"
    )
    top_k: int = option(8, "entries stored for each target token", range="[1, inf)", metavar="K")
    temperature: float = option(
        1.0, "temperature of the distribution; must equal --kd-temperature in training", range="(0, inf)", metavar="T"
    )
    dtype: str = option("float16", "type of the probabilities", choices=("float16", "float32"))
    max_tokens: int = common.number(8000, "tokens in a batch on the longer side, padding included")
    precision: str = common.precision("of the teacher's matrix products")
    teacher_data: str | None = common.data("folder with the teacher's dict.LANG.txt; default: next to the checkpoint")
    source_lang: str | None = common.language("source language; default: the teacher's")
    target_lang: str | None = common.language("target language; default: the teacher's")
    truncate_source: int | None = option(
        None,
        "cut sources to N tokens, for training with --truncate-source --max-source-positions N",
        range="[2, inf)",
        metavar="N",
    )
    device: str = common.device()
    processes: int = common.processes()
    join_only: bool = common.join_only()


def run(args: Options) -> int:
    if args.processes != 1 and not args.join_only:
        splits = [flat_values(replace(args, splits=(split,))) for split in args.splits]
        runs = (run_processes("cache-teacher", args.processes, values) for values in splits)
        return next((status for status in runs if status), 0)
    die_with_parent()
    import functools
    from pathlib import Path

    import torch

    register()
    from fairseq_compress.corpus.vocabulary_match import warn_of_unknown
    from fairseq_compress.jobs.teacher_cache import TeacherCacheJob
    from fairseq_compress.teachers.cache_records import CacheOptions
    from fairseq_compress.teachers.dictionaries import count_unknown
    from fairseq_compress.teachers.frozen import FrozenTeachers
    from fairseq_compress.teachers.loading import pick_device
    from fairseq_compress.work.sharded import run_job, shard_from_environment

    device = pick_device(args.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    options = CacheOptions(args.top_k, args.temperature, args.dtype, args.precision, args.max_tokens, device.type)
    shard = shard_from_environment()
    task = _task(args)
    teachers = functools.cache(lambda: FrozenTeachers(args.checkpoint, task, args.teacher_data, False))
    for split in dict.fromkeys(args.splits):
        output = Path(args.output) / split
        dataset, facts = _load(task, split, args.checkpoint)
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
        common.tell(
            f"{output}: {meta.sentences} sentences, {meta.tokens} target tokens, k={meta.k}, "
            f"{meta.bytes_per_token} bytes a token, {size:.1f} MB{unread}"
        )
    return 0


def _task(args: Options) -> Any:
    """fairseq's translation task over the data; default languages: those of the teacher."""
    from fairseq import utils
    from fairseq.tasks.translation import TranslationConfig, TranslationTask

    from fairseq_compress.checkpoint.load import load_upgraded
    from fairseq_compress.errors import ConfigError, DataError

    source, target = args.source_lang, args.target_lang
    if not (source and target):
        trained = load_upgraded(args.checkpoint.split(":")[0])[1].task
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
    """A split as training loads it, and the checksums of its inputs."""
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
