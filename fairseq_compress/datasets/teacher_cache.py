"""Batches with a cached teacher's top k entries: ``sample["teacher_topk"]``, aligned with ``sample["target"]``."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import ConcatDataset, FairseqDataset
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_compress.datasets.attachments import ForwardingDataset, check_task, first_process
from fairseq_compress.errors import ConfigError
from fairseq_compress.teachers.agreement import reading_of_task
from fairseq_compress.teachers.cache import TeacherCache
from fairseq_compress.teachers.cache_checksums import data_checksums, teacher_checksums
from fairseq_compress.work.files import PathLike

logger = logging.getLogger(__name__)
SAMPLE_KEY = "teacher_topk"


class TeacherCacheDataset(ForwardingDataset):
    """A LanguagePairDataset whose batches (B sentences, T target positions) also have the teacher's top k entries.

    ``sample["teacher_topk"]`` is ``{"ids": (B, T, k) int64, "probabilities": (B, T, k), "rest": (B, T)}``, where rest
    is the tail mass; at padding ids and probabilities are 0 and the tail mass is 1. The numbers have the cache's type.
    """

    def __init__(self, dataset: FairseqDataset, cache: TeacherCache) -> None:
        super().__init__(dataset)
        self.cache = cache

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
    arrays = {
        "ids": np.zeros(shape + record["ids"].shape, dtype=np.int64),
        "probabilities": np.zeros(shape + record["probabilities"].shape, dtype=record["probabilities"].base),
        "rest": np.ones(shape, dtype=record["rest"]),
    }
    for row, sentence in enumerate(records):
        places = slice(length - len(sentence), length) if left_pad else slice(0, len(sentence))
        for name, array in arrays.items():
            array[row, places] = sentence[name]
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def attach_teacher_cache(task: FairseqTask, directory: PathLike, teacher_path: str | None, temperature: float) -> None:
    """Verify a teacher cache and attach it to every batch of the task; only the training split must have one.

    Data files and records are verified when fairseq loads a split: their SHA-256 (about 1 second a GB) in the first
    process of each machine, sizes and counts in all.

    Args:
        task: a task with ``wrap_datasets``.
        directory: output of ``fairseq-compress cache-teacher``.
        teacher_path: its checkpoints, separated by ``:``; None for any.
        temperature: of the distillation term.
    """
    check_task(task, "--teacher-cache")
    attachment = _Attachment(task, Path(directory), teacher_path, temperature)
    attachment.open(task.cfg.train_subset)
    task.wrap_datasets(attachment)


class _Attachment:
    """``wrap_datasets`` calls this with each split that fairseq loads."""

    def __init__(self, task: FairseqTask, directory: Path, teacher_path: str | None, temperature: float) -> None:
        self.task, self.directory = task, directory
        self.teacher_path, self.temperature = teacher_path, temperature
        self.teachers = teacher_checksums(teacher_path) if teacher_path else []

    def open(self, split: str) -> TeacherCache:
        """The cache of a split, checked as far as possible without the data."""
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
            cache.check_data(data_checksums(cfg.data, split, cfg.source_lang, cfg.target_lang, parts))
            cache.check_records()
        cache.align(dataset.tgt_sizes)
        meta = cache.meta
        logger.info(
            f"teacher cache {cache.folder}: {meta.sentences:,} sentences, {meta.tokens:,} target tokens, k={meta.k}, "
            f"{meta.bytes_per_token} bytes a token"
        )
        return TeacherCacheDataset(dataset, cache)


def loaded_parts(dataset: FairseqDataset) -> int:
    """The number of parts (train, train1, ...) of a dataset."""
    side = dataset.tgt
    if not isinstance(side, ConcatDataset):
        return 1
    if any(ratio != 1 for ratio in side.sample_ratios):
        raise ConfigError(f"--upsample-primary: must be 1 with --teacher-cache, got {side.sample_ratios[0]}")
    return len(side.datasets)
