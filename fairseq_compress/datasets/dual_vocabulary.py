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

    The student sees its own vocabulary only. For the teacher each word is cut by the STUDENT's vocabulary with
    probability ``p_mix`` (the paper's p_DT), by the teacher's otherwise; 0 is the teacher's own segmentation, for
    validation. A draw depends on seed, epoch, side, sentence and place of the word only: it is the same in any worker,
    in any batch and after a restart, and it is another one in the next epoch.

    Item i has ids with the end of the sentence: ``source``, ``target`` of the student's dictionary, ``teacher_source``,
    ``teacher_target`` of the union, and ``words``, ``teacher_words``, the number of the word of each piece of the two
    targets, from 0; the end of the sentence is a word of its own, the last one.

    Lengths differ from epoch to epoch, but batches and filters must not depend on a draw. So a sentence counts with the
    length that no mixture exceeds: each word in the segmentation with more pieces, and the end of the sentence. A batch
    never has more than ``--max-tokens``, and no sentence is over the positions of either model in any epoch.

    Args:
        source, target: both languages of one part of one folder.
        p_mix: from 0 to 1.
        seed: of the draws.
        mix_source, mix_target: false leaves a side of the teacher in its own segmentation.
        shuffle: sentences of equal length come in random order, as in fairseq's LanguagePairDataset.
    """

    def __init__(
        self,
        source: DualText,
        target: DualText,
        p_mix: float,
        seed: int,
        mix_source: bool = True,
        mix_target: bool = True,
        shuffle: bool = True,
    ) -> None:
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
        # Shared memory: workers that outlive an epoch (persistent ones) must see the next number too.
        self._epoch = torch.ones((), dtype=torch.int64).share_memory_()

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """No: fairseq makes a new iterator for each epoch, so that a resumed run has the batches of a whole one."""
        return False

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """The items of a batch, cut together: PyTorch's DataLoader asks for them so."""
        places = np.asarray(indices, dtype=np.int64)
        columns = self._side(0, places) | self._side(1, places)
        return [
            {"id": int(index), **{name: column[row] for name, column in columns.items()}}
            for row, index in enumerate(indices)
        ]

    def _side(self, side: int, indices: Integers) -> dict[str, tuple[Tensor, ...]]:
        """What the items of B sentences have of one side."""
        text, name = self.texts[side], SIDES[side]
        types, counts = text.batch(indices)
        stream = seed_of("dual vocabulary", self.seed, int(self._epoch), name)
        use_teacher = word_draws(stream, indices, counts) >= self.rates[side]
        student, words = end_sentences(*text.student(types), counts)
        teacher, teacher_words = end_sentences(*text.segment(types, use_teacher), counts)
        columns = {name: student, f"teacher_{name}": teacher}
        return columns | {"words": words, "teacher_words": teacher_words} if name == "target" else columns

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch of B sentences, the longest source of the student first.

        The student's is what fairseq's LanguagePairDataset makes: ``id``, ``nsentences``, ``ntokens``, ``net_input``
        (``src_tokens`` padded on the left, ``src_lengths``, ``prev_output_tokens``), ``target``. ``teacher`` has
        ``ntokens``, ``net_input`` and ``target`` of the same sentences in the same order, as union ids; its
        ``src_lengths`` are in no order. ``words`` has ``student`` (B, T_s) and ``teacher`` (B, T_t): the word of each
        target token, -1 at padding.
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
    """(N,) tokens of each sentence, with its end, that neither the student nor a mixture at this rate exceeds."""
    sizes = text.sizes
    longest: np.ndarray = sizes.longest if rate > 0 else np.maximum(sizes.student, sizes.teacher)
    return longest + 1


def end_sentences(ids: Integers, words: Integers, counts: Integers) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Cut the P pieces of B sentences apart and put the end after each sentence, as a word of its own.

    Args:
        ids, words: (P,) as :meth:`fairseq_compress.corpus.dual_text.DualText.segment` gives them.
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
    """Rows of several lengths as one (B, T) tensor, with ``value`` after them, or before them."""
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
