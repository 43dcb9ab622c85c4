"""Batches that carry what a cached teacher said: ``sample["teacher_topk"]``, aligned with ``sample["target"]``."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import BaseWrapperDataset, ConcatDataset, FairseqDataset
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_compress.errors import ConfigError
from fairseq_compress.teachers.agreement import reading_of_task
from fairseq_compress.teachers.cache import TeacherCache
from fairseq_compress.teachers.cache_checksums import data_checksums, teacher_checksums
from fairseq_compress.work.files import PathLike

logger = logging.getLogger(__name__)
SAMPLE_KEY = "teacher_topk"


class TeacherCacheDataset(BaseWrapperDataset):
    """A LanguagePairDataset whose batches (B sentences, T target positions) also have the teacher's top k entries.

    ``sample["teacher_topk"]`` is ``{"ids": (B, T, k) int64, "probabilities": (B, T, k), "rest": (B, T)}``; at padding
    the ids and the probabilities are 0 and the rest is 1. The numbers have the type of the cache: float16 stays what
    it is under ``--fp16`` and ``--bf16`` (fairseq casts float32 only).

    Whatever else fairseq asks of a dataset, the wrapped one answers.
    """

    def __init__(self, dataset: FairseqDataset, cache: TeacherCache) -> None:
        super().__init__(dataset)
        self.cache = cache

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # not there yet: a worker process is unpickling this object
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        return self.dataset.num_tokens_vec(indices)

    def collater(self, samples: list[dict[str, Any]], pad_to_length: dict[str, int] | None = None) -> dict[str, Any]:
        """fairseq's batch with the records of its sentences, in the batch's own order of sentences."""
        batch = self.dataset.collater(samples, pad_to_length=pad_to_length)
        if batch:  # an empty list of samples gives an empty batch
            batch[SAMPLE_KEY] = collate_records(
                [self.cache.records(index) for index in batch["id"].tolist()],
                length=batch["target"].size(1),
                left_pad=self.dataset.left_pad_target,
            )
        return batch


def collate_records(records: list[np.ndarray], length: int, left_pad: bool) -> dict[str, Tensor]:
    """Records of B sentences as tensors of ``length`` positions, padded as fairseq pads the target."""
    record = records[0].dtype
    shape = (len(records), length)
    ids = np.zeros(shape + record["ids"].shape, dtype=np.int64)
    probabilities = np.zeros(shape + record["probabilities"].shape, dtype=record["probabilities"].base)
    rest = np.ones(shape, dtype=record["rest"])
    for row, sentence in enumerate(records):
        places = slice(length - len(sentence), length) if left_pad else slice(0, len(sentence))
        ids[row, places] = sentence["ids"]
        probabilities[row, places] = sentence["probabilities"]
        rest[row, places] = sentence["rest"]
    return {
        "ids": torch.from_numpy(ids),
        "probabilities": torch.from_numpy(probabilities),
        "rest": torch.from_numpy(rest),
    }


def attach_teacher_cache(task: FairseqTask, directory: PathLike, teacher_path: str | None, temperature: float) -> None:
    """Verify a teacher cache and let every batch of the task carry it.

    What needs no data is checked at once; data files and records are, when fairseq loads a split, which it does
    before the first update. The training split must have a cache; a split without one goes on without
    ``sample["teacher_topk"]``, and the log says so.

    Every start reads the data files and ``records.bin`` through (SHA-256, about 1 second a GB), in the first process
    of each machine that torchrun started, or else in the first process of all; sizes and counts are checked by all.

    Args:
        task: a task with ``wrap_datasets``.
        directory: output of ``fairseq-compress cache-teacher``.
        teacher_path: the checkpoints, separated by ``:``, that it must have been made with; None for any.
        temperature: of the distillation term.

    Raises:
        ConfigError: the task cannot carry a cache, several data folders; or another temperature, another teacher,
            other languages, dictionaries or lengths than those of the cache, all in one message.
        DataError: no cache of the training split; other data; records cut or altered.
    """
    if not hasattr(task, "wrap_datasets"):
        raise ConfigError(f"--teacher-cache: needs --task compressed_translation, got {type(task).__name__}")
    folders = utils.split_paths(task.cfg.data)
    if len(folders) != 1:
        raise ConfigError(f"--teacher-cache: needs one data folder, got {len(folders)}: {task.cfg.data}")
    attachment = _Attachment(task, Path(directory), folders[0], teacher_path, temperature)
    attachment.open(task.cfg.train_subset)
    task.wrap_datasets(attachment)


class _Attachment:
    """What ``wrap_datasets`` calls with each split that fairseq loads."""

    def __init__(
        self, task: FairseqTask, directory: Path, data: str, teacher_path: str | None, temperature: float
    ) -> None:
        self.task, self.directory, self.data = task, directory, data
        self.teacher_path, self.temperature = teacher_path, temperature
        self.teachers = teacher_checksums(teacher_path) if teacher_path else []

    def open(self, split: str) -> TeacherCache:
        """The cache of a split, checked as far as it can be without the data."""
        cache = TeacherCache(self.directory / split)
        student = reading_of_task(self.task)
        if problems := cache.differences(student, self.temperature, self.teacher_path, self.teachers):
            raise ConfigError("; ".join(problems))
        return cache

    def __call__(self, split: str, dataset: FairseqDataset) -> FairseqDataset:
        started = any((self.directory / name).exists() for name in (split, f"{split}.work"))
        if split != self.task.cfg.train_subset and not started:
            logger.info(
                f"teacher cache {self.directory}: none for split '{split}', only the gold term is computed there"
            )
            return dataset
        cache = self.open(split)
        if first_process():
            cfg = self.task.cfg
            parts = loaded_parts(dataset)
            cache.check_data(data_checksums(self.data, split, cfg.source_lang, cfg.target_lang, parts))
            cache.check_records()
        cache.align(dataset.tgt_sizes)
        meta = cache.meta
        logger.info(
            f"teacher cache {cache.folder}: {meta.sentences:,} sentences, {meta.tokens:,} target tokens, k={meta.k}, "
            f"{meta.bytes_per_token} bytes a token"
        )
        return TeacherCacheDataset(dataset, cache)


def loaded_parts(dataset: FairseqDataset) -> int:
    """How many parts (train, train1, ...) a pair was joined from.

    Raises:
        ConfigError: a part was taken more than once, so that sentences are not where the cache has them.
    """
    side = dataset.tgt
    if not isinstance(side, ConcatDataset):
        return 1
    if any(ratio != 1 for ratio in side.sample_ratios):
        raise ConfigError(f"--upsample-primary: must be 1 with --teacher-cache, got {side.sample_ratios[0]}")
    return len(side.datasets)


def first_process() -> bool:
    """Of each machine that torchrun started, or else of all: one reads the files through, that is enough."""
    if "LOCAL_RANK" in os.environ:
        return os.environ["LOCAL_RANK"] == "0"
    started = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not (started and torch.distributed.get_rank())
