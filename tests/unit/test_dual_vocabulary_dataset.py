"""Batches in two segmentations: the student's are fairseq's own, the teacher's mixed ones spell the same sentences."""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset, data_utils
from fairseq.data.iterators import EpochBatchIterator
from fairseq.data.language_pair_dataset import collate

from fairseq_compress.corpus.dual_text import EOS, PAD, DualText
from fairseq_compress.datasets.dual_vocabulary import DualVocabularyDataset
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.functional.draws import word_draws
from fairseq_compress.functional.layers.supports import splitmix64
from tests.helpers.dual_corpus import make_folder, spell, symbols

LINES = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("dual"), train=LINES)


def make(folder: Path, p_mix: float = 0.5, seed: int = 1, **options: Any) -> DualVocabularyDataset:
    return DualVocabularyDataset(
        DualText(folder, "train", "en"), DualText(folder, "train", "cs"), p_mix, seed, **options
    )


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_draws_are_numbers_of_splitmix64() -> None:
    sentences, counts = np.array([4, 0, 9]), np.array([3, 0, 2])
    states = splitmix64(123, 10).tolist()
    numbers = [splitmix64(states[index], count).tolist() for index, count in zip([4, 0, 9], [3, 0, 2], strict=True)]
    expected = [number >> 11 for sentence in numbers for number in sentence]
    found = word_draws(123, sentences, counts)
    assert found.tolist() == [number / 2**53 for number in expected]
    assert word_draws(123, sentences[2:], counts[2:]).tolist() == found[3:].tolist()
    assert word_draws(123 - 2**64, sentences, counts).tolist() == found.tolist()
    assert word_draws(5, np.zeros(0, int), np.zeros(0, int)).shape == (0,)


def test_the_student_has_what_fairseq_makes(folder: Path) -> None:
    dataset, dictionary = make(folder), Dictionary.load(str(folder / "dict.student.txt"))
    lines = [[text.student(text.word_types(index))[0] for index in range(LINES)] for text in dataset.texts]
    samples = [
        {"id": i, "source": torch.tensor([*source, EOS]), "target": torch.tensor([*target, EOS])}
        for i, (source, target) in enumerate(zip(*lines, strict=True))
    ]
    for indices in ([3], [5, 17, 2, 40, 41], list(range(100, 160))):
        batch = dataset.collater([dataset[index] for index in indices])
        stock = collate([samples[index] for index in indices], dictionary.pad(), dictionary.eos())
        teacher, words = batch.pop("teacher"), batch.pop("words")
        assert equal(batch, stock)
        assert words["student"].shape == batch["target"].shape
        assert words["teacher"].shape == teacher["target"].shape
    assert dataset.collater([]) == {}


def check_teacher(folder: Path, dataset: DualVocabularyDataset, batch: dict[str, Any]) -> None:
    """Each word of the target is spelled alike by student and teacher, padding apart."""
    tables = {"student": symbols(folder / "dict.student.txt"), "teacher": symbols(folder / "dict.union.txt")}
    teacher, spelled = batch["teacher"], {}
    for name, sample in (("student", batch), ("teacher", teacher)):
        target, words = sample["target"], batch["words"][name]
        assert torch.equal(words == -1, target == PAD)
        assert sample["ntokens"] == int((target != PAD).sum())
        spelled[name] = [
            [
                spell([tables[name][piece] for piece in row[numbers == word].tolist()])
                for word in range(int(numbers.max()) + 1)
            ]
            for row, numbers in zip(target, words, strict=True)
        ]
        assert all(row[-1] == "</s>" and "</s>" not in row[:-1] for row in spelled[name])
        lengths = sample["net_input"]["src_lengths"]
        source = sample["net_input"]["src_tokens"]
        assert torch.equal(lengths, (source != PAD).sum(1))
        assert source.size(1) == lengths.max()
        assert (source[:, -1] == EOS).all()
        for row, shifted in zip(target.tolist(), sample["net_input"]["prev_output_tokens"].tolist(), strict=True):
            size = row.index(EOS)
            assert shifted == [EOS, *row[:size], *[PAD] * (len(row) - size - 1)]
    assert spelled["student"] == spelled["teacher"]
    for row, index in enumerate(batch["id"].tolist()):
        item = dataset[index]
        assert item["teacher_source"].tolist() == [
            x for x in teacher["net_input"]["src_tokens"][row].tolist() if x != PAD
        ]
        assert spell([tables["student"][x] for x in item["source"].tolist()]) == spell(
            [tables["teacher"][x] for x in item["teacher_source"].tolist()]
        )


@pytest.mark.parametrize("p_mix", [0.0, 0.3, 1.0])
def test_words_of_both_spell_the_same(folder: Path, p_mix: float) -> None:
    dataset = make(folder, p_mix)
    for start in (0, 100, 200):
        check_teacher(folder, dataset, dataset.collater([dataset[index] for index in range(start, start + 40)]))


def chosen(dataset: DualVocabularyDataset, side: str) -> list[bool]:
    """Whether each word that both cut differently is the student's in the teacher's input, for all sentences."""
    text = dataset.texts[("source", "target").index(side)]
    found = []
    for index in range(len(dataset)):
        rest = dataset[index][f"teacher_{side}"].tolist()
        for word in text.word_types(index):
            options = [text.segment(np.array([word]), np.array([use]))[0].tolist() for use in (True, False)]
            mine = [rest[: len(option)] == option for option in options]
            if options[0] != options[1]:  # then neither begins with the other
                assert sum(mine) == 1
                found.append(mine[1])
            rest = rest[len(options[mine.index(True)]) :]
        assert rest == [EOS]
    return found


@pytest.mark.parametrize("p_mix", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_the_share_of_words_in_the_students_vocabulary_is_p_mix(folder: Path, p_mix: float) -> None:
    dataset = make(folder, p_mix)
    for side in ("source", "target"):
        picked = np.array(chosen(dataset, side))
        assert len(picked) > 300
        assert abs(picked.mean() - p_mix) <= 4 * math.sqrt(p_mix * (1 - p_mix) / len(picked))


def mixtures(dataset: DualVocabularyDataset, side: str = "target") -> list[list[int]]:
    return [dataset[index][f"teacher_{side}"].tolist() for index in range(len(dataset))]


def test_epochs_seeds_and_sides_draw_anew_and_nothing_else_matters(folder: Path) -> None:
    dataset = make(folder)
    first = mixtures(dataset)
    dataset.set_epoch(2)
    second = mixtures(dataset)
    assert first != second != mixtures(make(folder, seed=2)) != first
    again = pickle.loads(pickle.dumps(make(folder)))
    assert mixtures(again) == first
    again.set_epoch(2)
    assert mixtures(again) == second
    together = again.__getitems__([7, 3, 250])
    assert [item["teacher_target"].tolist() for item in together] == [second[index] for index in (7, 3, 250)]
    text = DualText(folder, "train", "en")
    swapped = DualVocabularyDataset(DualText(folder, "train", "cs"), text, 0.5, 1)
    assert mixtures(swapped) != mixtures(make(folder), "source")


def test_switches_of_the_sides(folder: Path) -> None:
    pure, mixed = make(folder, 0.0), make(folder, 0.5)
    source_only, target_only = make(folder, 0.5, mix_target=False), make(folder, 0.5, mix_source=False)
    for side, same, other in (("source", source_only, target_only), ("target", target_only, source_only)):
        assert mixtures(same, side) == mixtures(mixed, side) != mixtures(pure, side)
        assert mixtures(other, side) == mixtures(pure, side)
    assert mixtures(pure) == [
        [*pure.texts[1].teacher(pure.texts[1].word_types(index))[0].tolist(), EOS] for index in range(LINES)
    ]


def iterate(dataset: DualVocabularyDataset, workers: int, **options: Any) -> EpochBatchIterator:
    with data_utils.numpy_seed(5):
        order = dataset.ordered_indices()
    batches = dataset.batch_by_size(order, max_tokens=400)
    return EpochBatchIterator(dataset, dataset.collater, batches, seed=5, num_workers=workers, **options)


def test_workers_and_kept_iterators_change_no_draw(folder: Path) -> None:
    epochs = []
    for workers, options in ((0, {}), (2, {}), (2, {"reuse_dataloader": True, "persistent_workers": True})):
        iterator = iterate(make(folder), workers, **options)
        epochs.append([list(iterator.next_epoch_itr()) for _ in range(2)])
    for found in epochs[1:]:
        for one, other in zip(epochs[0], found, strict=True):
            assert len(one) == len(other) > 5
            assert all(map(equal, one, other))
    by_id = [{int(i): row for batch in epoch for i, row in zip(batch["id"], batch["teacher"]["target"], strict=True)}
             for epoch in epochs[0]]  # fmt: skip
    assert sum(by_id[0][i].tolist() != by_id[1][i].tolist() for i in range(LINES)) > LINES / 2
    assert not make(folder).can_reuse_epoch_itr_across_epochs


def test_a_resumed_epoch_goes_on_with_the_same_batches(folder: Path) -> None:
    whole = iterate(make(folder), 0)
    list(whole.next_epoch_itr())
    epoch = whole.next_epoch_itr()
    _, state, rest = next(epoch), whole.state_dict(), list(epoch)
    resumed = iterate(make(folder), 0)
    resumed.load_state_dict(state)
    assert all(map(equal, resumed.next_epoch_itr(), rest))
    assert state["epoch"] == 2


def test_sizes_bound_every_mixture_and_are_the_same_in_each_epoch(folder: Path) -> None:
    dataset = make(folder)
    longest = np.zeros((LINES, 2), dtype=int)
    for epoch in range(1, 9):
        dataset.set_epoch(epoch)
        items = dataset.__getitems__(list(range(LINES)))
        for prefix in ("", "teacher_"):
            lengths = np.array([[len(item[prefix + side]) for side in ("source", "target")] for item in items])
            assert (lengths <= dataset.sizes).all()
            longest = np.maximum(longest, lengths)
    assert (longest == dataset.sizes).mean() > 0.9
    assert (make(folder, 0.0).sizes <= dataset.sizes).all()


def test_order_filters_and_batches_are_those_of_fairseq(folder: Path) -> None:
    for shuffle in (False, True):
        ours = make(folder, shuffle=shuffle)
        dictionary = Dictionary()
        theirs = LanguagePairDataset(
            [0] * LINES, ours.src_sizes, dictionary, [0] * LINES, ours.tgt_sizes, dictionary, shuffle=shuffle
        )
        orders = []
        for dataset in (ours, theirs):
            with data_utils.numpy_seed(3):
                orders.append(dataset.ordered_indices())
        assert np.array_equal(*orders)
        assert [ours.size(i) for i in range(LINES)] == [theirs.size(i) for i in range(LINES)]
        assert [ours.num_tokens(i) for i in range(LINES)] == [theirs.num_tokens(i) for i in range(LINES)]
        for limit in ((20, 25), 18):
            kept, dropped = ours.filter_indices_by_size(orders[0], limit)
            assert np.array_equal(kept, theirs.filter_indices_by_size(orders[0], limit)[0])
            assert len(dropped) + len(kept) == LINES
            assert dropped
        for one, other in zip(*(d.batch_by_size(orders[0], max_tokens=300) for d in (ours, theirs)), strict=True):
            assert np.array_equal(one, other)


def test_wrong_arguments(folder: Path) -> None:
    english = DualText(folder, "train", "en")
    for p_mix in (-0.1, 1.5, math.nan):
        with pytest.raises(ConfigError, match=r"p_mix: must be a probability, 0 to 1, got"):
            make(folder, p_mix)
    for other in (english, DualText(folder, "valid", "cs")):
        with pytest.raises(DataError, match=r"must be both languages of one part of a folder, got .*train\.en and"):
            DualVocabularyDataset(english, other, 0.5, 1)
