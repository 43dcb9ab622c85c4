"""Batches with K hypotheses of each source: ``sample["k_best"]``."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import ConcatDataset, FairseqDataset, data_utils
from fairseq.tasks import FairseqTask
from torch import Tensor

from fairseq_compress.datasets.attachments import ForwardingDataset, check_task, first_process
from fairseq_compress.datasets.k_best_files import KBestFiles, k_best_prefix
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.teachers.cache_checksums import data_checksums, dictionary_facts

logger = logging.getLogger(__name__)
SAMPLE_KEY = "k_best"


class KBestDataset(ForwardingDataset):
    """A LanguagePairDataset whose batches of B sources also hold R = Σ K_i hypotheses of them, best first.

    ``sample["k_best"]`` has ``target`` and ``prev_output_tokens`` (R, T); ``sources`` (R,), the row of each
    hypothesis's source in the batch; ``weights`` (R,), q_k ∝ exp(score_k / temperature) with sum 1 per source, in
    float64, which fairseq does not cast; ``ntokens``, the tokens of all hypotheses; ``weighted_ntokens``, Σ q_k len_k.

    ``--max-tokens`` limits the number of sources times the largest of: the length of a source, and K_i times its
    longest hypothesis.

    Args:
        dataset: fairseq's pairs of the sources and the first hypotheses.
        k: use the first k of each list; None for all.
    """

    def __init__(self, dataset: FairseqDataset, files: KBestFiles, k: int | None, temperature: float) -> None:
        super().__init__(dataset)
        if len(files) != len(dataset):
            raise DataError(f"{files.prefix}: has {len(files)} sentences, the data have {len(dataset)}")
        self.files = files
        self.temperature = temperature
        self.counts = np.diff(files.offsets).astype(np.int32)
        if k is not None:
            np.minimum(self.counts, k, out=self.counts)
        self.longest = longest_hypotheses(files.hypotheses.sizes, files.offsets, self.counts)
        self.target_tokens = self.counts * self.longest

    def __getitem__(self, index: int) -> dict[str, Any]:
        first = int(self.files.offsets[index])
        places = range(first, first + int(self.counts[index]))
        hypotheses = [self.files.hypotheses[place] for place in places]
        scores = self.files.scores[places.start : places.stop]
        return {**self.dataset[index], "hypotheses": hypotheses, "scores": scores}

    def collater(self, samples: list[dict[str, Any]], pad_to_length: dict[str, int] | None = None) -> dict[str, Any]:
        """fairseq's batch and the hypotheses of its sources, in the batch's order of sources."""
        batch = self.dataset.collater(samples, pad_to_length=pad_to_length)
        if batch:  # an empty list of samples gives an empty batch
            by_id = {sample["id"]: sample for sample in samples}
            length = None if pad_to_length is None else pad_to_length["target"]
            batch[SAMPLE_KEY] = self._rows([by_id[index] for index in batch["id"].tolist()], length)
        return batch

    def _rows(self, samples: Sequence[dict[str, Any]], pad_to_length: int | None) -> dict[str, Any]:
        hypotheses = [ids for sample in samples for ids in sample["hypotheses"]]
        counts = torch.tensor([len(sample["hypotheses"]) for sample in samples])
        weights = np.concatenate([hypothesis_weights(sample["scores"], self.temperature) for sample in samples])
        lengths = np.array([len(ids) for ids in hypotheses])
        return {
            "target": self._merge(hypotheses, pad_to_length, move_eos_to_beginning=False),
            "prev_output_tokens": self._merge(hypotheses, pad_to_length, move_eos_to_beginning=True),
            "sources": torch.arange(len(samples)).repeat_interleave(counts),
            "weights": torch.from_numpy(weights),
            "ntokens": int(lengths.sum()),
            "weighted_ntokens": float(weights @ lengths),
        }

    def _merge(self, hypotheses: list[Tensor], pad_to_length: int | None, move_eos_to_beginning: bool) -> Tensor:
        dataset = self.dataset
        merged: Tensor = data_utils.collate_tokens(
            hypotheses,
            dataset.src_dict.pad(),
            dataset.eos,
            dataset.left_pad_target,
            move_eos_to_beginning,
            pad_to_length=pad_to_length,
            pad_to_multiple=dataset.pad_to_multiple,
        )
        return merged

    def num_tokens(self, index: int) -> int:
        return max(int(self.dataset.src_sizes[index]), int(self.target_tokens[index]))

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        tokens: np.ndarray = np.maximum(self.dataset.src_sizes[indices], self.target_tokens[indices])
        return tokens

    def size(self, index: int) -> tuple[int, int]:
        return self.dataset.src_sizes[index], self.longest[index]

    def filter_indices_by_size(self, indices: np.ndarray, max_sizes: Any) -> tuple[np.ndarray, list[int]]:
        """As fairseq's, by the longest hypothesis of each source."""
        kept: tuple[np.ndarray, list[int]] = data_utils.filter_paired_dataset_indices_by_size(
            self.dataset.src_sizes, self.longest, indices, max_sizes
        )
        return kept

    def batch_by_size(
        self, indices: np.ndarray, max_tokens: int | None = None, max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> Any:  # fmt: skip
        """As fairseq's, by the tokens of all hypotheses."""
        tokens = self.num_tokens_vec(indices)
        if max_tokens is not None and len(tokens) and tokens.max() > max_tokens:
            index = int(indices[tokens.argmax()])
            raise ConfigError(
                f"--max-tokens: must be at least {tokens.max()} for sentence {index + 1} with its {self.counts[index]} "
                f"hypotheses, got {max_tokens}; a lower --k-best or --max-target-positions makes it smaller"
            )
        # fairseq's wrapper would ask the wrapped dataset.
        return FairseqDataset.batch_by_size(self, indices, max_tokens, max_sentences, required_batch_size_multiple)


def hypothesis_weights(scores: np.ndarray, temperature: float) -> np.ndarray:
    """q_k = exp(score_k / T) / Σ_j exp(score_j / T) in float64; one hypothesis has exactly 1."""
    shifted = np.exp((scores.astype(np.float64) - scores.max()) / temperature)
    weights: np.ndarray = shifted / shifted.sum()
    return weights


def longest_hypotheses(sizes: np.ndarray, offsets: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Length of the longest of the first ``counts[i]`` hypotheses of each sentence i; (N,), int32."""
    longest: np.ndarray = np.zeros(len(counts), dtype=np.int32)
    for place in range(int(counts.max(initial=0))):
        has = np.flatnonzero(counts > place)
        longest[has] = np.maximum(longest[has], sizes[offsets[has] + place])
    return longest


def attach_k_best(task: FairseqTask, k: int | None, temperature: float) -> None:
    """Attach the hypotheses of its sources to every batch of the task; only the training split must have them.

    Checksums are verified when fairseq loads a split, in the first process of each machine.
    """
    option = "--criterion sequence_level_kd"
    check_task(task, option)
    if task.cfg.num_batch_buckets:
        raise ConfigError(f"{option}: needs --num-batch-buckets 0, got {task.cfg.num_batch_buckets}")
    task.wrap_datasets(_Attachment(task, k, temperature))


class _Attachment:
    """``wrap_datasets`` calls this with each split that fairseq loads."""

    def __init__(self, task: FairseqTask, k: int | None, temperature: float) -> None:
        self.task, self.k, self.temperature = task, k, temperature

    def __call__(self, split: str, dataset: FairseqDataset) -> FairseqDataset:
        cfg = self.task.cfg
        prefix = k_best_prefix(cfg.data, split, cfg.source_lang, cfg.target_lang)
        if split != cfg.train_subset and not os.path.exists(f"{prefix}.json"):
            logger.info(f"{prefix}: no hypotheses for split '{split}', the loss there is that of the reference")
            return dataset
        if isinstance(dataset.src, ConcatDataset):
            raise ConfigError(f"{prefix}: a split in several parts ({split}, {split}1, ...) cannot have hypotheses")
        files = KBestFiles(prefix)
        if first_process():
            self._verify(files, split)
        wrapped = KBestDataset(dataset, files, self.k, self.temperature)
        logger.info(f"{prefix}: {len(files):,} sentences, {int(wrapped.counts.sum(dtype=np.int64)):,} hypotheses")
        return wrapped

    def _verify(self, files: KBestFiles, split: str) -> None:
        task, cfg = self.task, self.task.cfg
        dictionaries = {"source": task.source_dictionary, "target": task.target_dictionary}
        found = {side: dictionary_facts(entries) for side, entries in dictionaries.items()}
        files.check_made_from("dictionaries", found)
        files.check_made_from("data", data_checksums(cfg.data, split, cfg.source_lang, cfg.target_lang, parts=1))
        files.check_files()
