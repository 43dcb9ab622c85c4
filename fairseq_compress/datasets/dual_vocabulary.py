"""Batches for dual-vocabulary training: the student's own segmentation, and a mixed one for the teacher."""

from typing import Any

import numpy as np
import torch
from fairseq.data import LanguagePairDataset
from torch import Tensor

from fairseq_compress.corpus.dual_text import EOS, PAD, DualText, Integers
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.functional.draws import seed_of, word_draws

SIDES = ("source", "target")
NO_WORD = -1


class DualVocabularyDataset(LanguagePairDataset):
    """Pairs of sentences in two segmentations (arXiv:1909.11687, "dual training").

    For the teacher each word is segmented by the STUDENT's vocabulary with probability ``p_mix`` (the paper's p_DT), by
    the teacher's otherwise. A draw is a function of seed, epoch, side, sentence and position of the word.

    Item i has ids with EOS: ``source``, ``target`` of the student's dictionary, ``teacher_source``, ``teacher_target``
    of the union, and ``words``, ``teacher_words``, the number of the word of each target token, from 0; EOS is the last
    word.

    The size of a sentence, for batches and filters, is an upper bound of all mixtures: the longer segmentation of each
    word, and EOS.

    Args:
        source, target: both languages of one part of one folder.
        mix_source, mix_target: false leaves a side of the teacher in its own segmentation.
        shuffle: sentences of equal length come in random order, as in fairseq's LanguagePairDataset.
    """

    def __init__(
        self, source: DualText, target: DualText, p_mix: float, seed: int, mix_source: bool = True,
        mix_target: bool = True, shuffle: bool = True,
    ) -> None:  # fmt: skip
        if not 0 <= p_mix <= 1:
            raise ConfigError(f"p_mix: must be a probability, 0 to 1, got {p_mix}")
        if (source.folder, source.part) != (target.folder, target.part) or source.language == target.language:
            names = " and ".join(f"{text.folder}/{text.part}.{text.language}" for text in (source, target))
            raise DataError(f"source and target: must be both languages of one part of a folder, got {names}")
        self.texts = (source, target)
        self.rates = (p_mix if mix_source else 0.0, p_mix if mix_target else 0.0)
        self.seed = seed
        sizes = [longest_mixtures(text, rate) for text, rate in zip(self.texts, self.rates, strict=True)]
        super().__init__(source, sizes[0], None, target, sizes[1], None, shuffle=shuffle, eos=EOS)
        # In shared memory for persistent workers.
        self._epoch = torch.ones((), dtype=torch.int64).share_memory_()

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """False: fairseq makes a new iterator for each epoch, so that a resumed run has the same batches."""
        return False

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """The items of a batch, for PyTorch's DataLoader."""
        places = np.asarray(indices, dtype=np.int64)
        columns = self._side(0, places) | self._side(1, places)
        return [
            {"id": int(index), **{name: column[row] for name, column in columns.items()}}
            for row, index in enumerate(indices)
        ]

    def _side(self, side: int, indices: Integers) -> dict[str, tuple[Tensor, ...]]:
        """Columns of one side, for the items of B sentences."""
        text, name = self.texts[side], SIDES[side]
        types, counts = text.batch(indices)
        stream = seed_of("dual vocabulary", self.seed, int(self._epoch), name)
        use_teacher = word_draws(stream, indices, counts) >= self.rates[side]
        student, words = end_sentences(*text.student(types), counts)
        teacher, teacher_words = end_sentences(*text.segment(types, use_teacher), counts)
        columns = {name: student, f"teacher_{name}": teacher}
        return columns | {"words": words, "teacher_words": teacher_words} if name == "target" else columns

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch of B sentences, the longest source of the student first, as of fairseq's LanguagePairDataset.

        ``teacher`` has ``ntokens``, ``net_input`` and ``target`` of the same sentences as union ids; ``words`` has
        ``student`` (B, T_s) and ``teacher`` (B, T_t): the word of each target token, -1 at padding.
        """
        if not samples:
            return {}
        lengths = torch.tensor([len(sample["source"]) for sample in samples])
        order = lengths.sort(descending=True).indices.tolist()  # as fairseq does it: no stable sort
        samples = [samples[place] for place in order]
        return {
            "id": torch.tensor([sample["id"] for sample in samples]),
            "nsentences": len(samples),
            **_model_input(samples, ""),
            "teacher": _model_input(samples, "teacher_"),
            "words": {
                "student": pad_rows([sample["words"] for sample in samples], NO_WORD),
                "teacher": pad_rows([sample["teacher_words"] for sample in samples], NO_WORD),
            },
        }


def longest_mixtures(text: DualText, rate: float) -> np.ndarray:
    """(N,) the most tokens of each sentence with EOS, for the student and any mixture at this rate."""
    sizes = text.sizes
    longest: np.ndarray = sizes.longest if rate > 0 else np.maximum(sizes.student, sizes.teacher)
    return longest + 1


def end_sentences(ids: Integers, words: Integers, counts: Integers) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Split the P pieces of B sentences and append EOS to each, as another word.

    Args:
        ids, words: (P,) of :meth:`fairseq_compress.corpus.dual_text.DualText.segment`.
        counts: (B,) words of each sentence.

    Returns:
        B tensors of ids, and B of the numbers of words in their sentence, int64.
    """
    sentences = np.repeat(np.arange(len(counts)), counts)[words]
    lengths = np.bincount(sentences, minlength=len(counts)) + 1
    places = np.arange(len(ids)) + sentences
    ended, numbers = np.full(lengths.sum(), EOS), np.repeat(counts, lengths)
    ended[places] = ids
    numbers[places] = words - (np.cumsum(counts) - counts)[sentences]
    cuts = lengths.tolist()
    return torch.from_numpy(ended).split(cuts), torch.from_numpy(numbers).split(cuts)


def pad_rows(rows: list[Tensor], value: int, left: bool = False) -> Tensor:
    """Pad rows with ``value`` into one (B, T) tensor."""
    lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    columns = torch.arange(int(lengths.max()))
    taken = columns >= len(columns) - lengths if left else columns < lengths
    return rows[0].new_full(taken.shape, value).masked_scatter_(taken, torch.cat(rows))


def _model_input(samples: list[dict[str, Any]], prefix: str) -> dict[str, Any]:
    """``net_input``, ``target`` and ``ntokens`` of one of the two models."""
    sources, targets = ([sample[prefix + side] for sample in samples] for side in SIDES)
    target = pad_rows(targets, PAD)
    previous = target.roll(1, dims=1)
    previous.masked_fill_(previous == EOS, PAD)[:, 0] = EOS
    return {
        "ntokens": sum(map(len, targets)),
        "net_input": {
            "src_tokens": pad_rows(sources, PAD, left=True),
            "src_lengths": torch.tensor([len(source) for source in sources]),
            "prev_output_tokens": previous,
        },
        "target": target,
    }
