"""Batches with a cached teacher: records beside their tokens under any padding, order, filter and worker process."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import ConcatDataset, Dictionary, LanguagePairDataset, ListDataset
from fairseq.tasks.translation import TranslationConfig

from fairseq_compress.datasets.teacher_cache import (
    SAMPLE_KEY,
    TeacherCacheDataset,
    attach_teacher_cache,
    loaded_parts,
)
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.tasks.compressed_translation import CompressedTranslationTask
from fairseq_compress.teachers.cache import CacheManifest, TeacherCache, record_dtype
from fairseq_compress.teachers.cache_checksums import dictionary_facts
from fairseq_compress.work.files import file_sha256

K, SENTENCES = 3, 40


def dictionary() -> Dictionary:
    made = Dictionary()
    for number in range(30):
        made.add_symbol(f"w{number}")
    return made


def sentences(seed: int, longest: int) -> list[torch.Tensor]:
    draw = np.random.default_rng(seed)
    return [torch.tensor([*draw.integers(4, 30, draw.integers(0, longest)).tolist(), 2]) for _ in range(SENTENCES)]


def pairs(**options) -> LanguagePairDataset:
    """A dataset whose targets and sources have nothing to do with each other's lengths."""
    source, target = sentences(0, 12), sentences(1, 9)
    sizes = [[len(sentence) for sentence in side] for side in (source, target)]
    return LanguagePairDataset(
        ListDataset(source, sizes[0]), sizes[0], dictionary(), ListDataset(target, sizes[1]), sizes[1], dictionary(),
        **options,
    )  # fmt: skip


@pytest.fixture
def cache(tmp_path) -> TeacherCache:
    """The records of ``pairs``: the first id is the token itself, the others tell sentence and place."""
    record = record_dtype(K, len(dictionary()), "float16")
    targets = sentences(1, 9)
    records = np.zeros(sum(map(len, targets)), dtype=record)
    records["ids"][:, 0] = torch.cat(targets)
    records["ids"][:, 1] = np.repeat(np.arange(SENTENCES), [len(target) for target in targets])
    records["ids"][:, 2] = np.concatenate([np.arange(len(target)) for target in targets])
    records["probabilities"] = records["ids"] / 64
    records["rest"] = 0.25
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / "records.bin"
    path.write_bytes(records.tobytes())
    entries = {side: dictionary_facts(dictionary()) for side in ("source", "target")}
    settings = {"source_lang": "en", "target_lang": "cs", "source_truncated_to": None}
    meta = CacheManifest(
        split="train", k=K, dtype="float16", temperature=1.0, precision="float32", longest=[1024, 1024],
        sentences=SENTENCES, unread=0, tokens=len(records), bytes_per_token=record.itemsize,
        sha256=file_sha256(path), data={}, dictionaries=entries, teachers=[], settings=settings,
    )  # fmt: skip
    (tmp_path / "train" / "meta.json").write_text(meta.to_json())
    opened = TeacherCache(tmp_path / "train")
    opened.align(np.array([len(target) for target in targets]))
    return opened


def check(batch) -> None:
    """Every position of the batch against the rule of the records; padding is 0, 0 and 1."""
    top = batch[SAMPLE_KEY]
    assert top["ids"].dtype == torch.int64
    assert top["ids"].shape == top["probabilities"].shape == (*batch["target"].shape, K)
    assert top["rest"].shape == batch["target"].shape
    for row, sentence in enumerate(batch["id"].tolist()):
        place = 0
        for column, token in enumerate(batch["target"][row].tolist()):
            expected = [0, 0, 0] if token == 1 else [token, sentence, place]
            assert top["ids"][row, column].tolist() == expected
            assert top["probabilities"][row, column].tolist() == [number / 64 for number in expected]
            assert top["rest"][row, column] == (1 if token == 1 else 0.25)
            place += token != 1


@pytest.mark.parametrize("left_pad", [False, True])
@pytest.mark.parametrize("options", [{}, {"pad_to_multiple": 8}, {"left_pad_source": False}])
def test_records_lie_beside_their_tokens(left_pad, options, cache):
    dataset = TeacherCacheDataset(pairs(left_pad_target=left_pad, **options), cache)
    draw = np.random.default_rng(3)
    for size in (1, 7, SENTENCES):
        indices = draw.permutation(SENTENCES)[:size]
        check(dataset.collater([dataset[int(index)] for index in indices]))
    check(dataset.collater([dataset[3], dataset[4]], pad_to_length={"source": 20, "target": 15}))
    assert dataset.collater([]) == {}


def test_batches_through_fairseq_s_iterator_with_workers(cache):
    """Shuffled, filtered by length, cut by tokens, collated in two other processes."""
    task = CompressedTranslationTask(TranslationConfig(), dictionary(), dictionary())
    dataset = TeacherCacheDataset(pairs(), cache)
    epoch = task.get_batch_iterator(
        dataset, max_tokens=30, max_positions=(8, 6), ignore_invalid_inputs=True, num_workers=2, seed=5
    )
    seen = []
    for batch in epoch.next_epoch_itr(shuffle=True):
        check(batch)
        seen += batch["id"].tolist()
    kept = [i for i in range(SENTENCES) if dataset.src_sizes[i] <= 8 and dataset.tgt_sizes[i] <= 6]
    assert sorted(seen) == kept
    assert 0 < len(kept) < SENTENCES


def test_a_worker_started_anew_opens_the_file_itself(cache):
    dataset = TeacherCacheDataset(pairs(), cache)
    data = pickle.dumps(cache)
    assert len(data) < 5_000 + 8 * SENTENCES  # the map itself is not in it
    again = pickle.loads(pickle.dumps(dataset))
    check(again.collater([again[index] for index in range(SENTENCES)]))


def test_the_wrapped_dataset_answers_all_that_fairseq_asks(cache):
    plain = pairs(shuffle=False)
    dataset = TeacherCacheDataset(plain, cache)
    indices = dataset.ordered_indices()
    np.testing.assert_array_equal(indices, plain.ordered_indices())
    np.testing.assert_array_equal(dataset.num_tokens_vec(indices), plain.num_tokens_vec(indices))
    np.testing.assert_array_equal(dataset.sizes, plain.sizes)
    for ours, theirs in zip(
        dataset.filter_indices_by_size(indices, (5, 5)), plain.filter_indices_by_size(indices, (5, 5)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(
        dataset.batch_by_size(indices, max_tokens=30), plain.batch_by_size(indices, max_tokens=30), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert len(dataset) == len(plain)
    assert (dataset.num_tokens(3), dataset.size(3)) == (plain.num_tokens(3), plain.size(3))
    assert (dataset.src_dict, dataset.tgt_dict, dataset.src, dataset.tgt) == (
        plain.src_dict, plain.tgt_dict, plain.src, plain.tgt
    )  # fmt: skip
    assert (dataset.get_batch_shapes(), dataset.buckets, dataset.supports_prefetch) == (None, None, False)
    assert dataset.can_reuse_epoch_itr_across_epochs
    assert dataset.supports_fetch_outside_dataloader
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = dataset.no_such_thing


def test_parts_that_were_taken_more_than_once_are_refused():
    once, twice = pairs(), pairs()
    once.tgt = ConcatDataset([once.tgt, once.tgt], [1, 1])
    twice.tgt = ConcatDataset([twice.tgt, twice.tgt], [2, 1])
    assert loaded_parts(once) == 2
    with pytest.raises(ConfigError, match="--upsample-primary: must be 1 with --teacher-cache, got 2"):
        loaded_parts(twice)


def make_task(**options) -> CompressedTranslationTask:
    options = {"data": "bin", "source_lang": "en", "target_lang": "cs", "train_subset": "train"} | options
    return CompressedTranslationTask(TranslationConfig(**options), dictionary(), dictionary())


def test_wraps_apply_to_what_is_loaded_and_to_what_will_be(monkeypatch):
    """Several wraps apply in their order."""
    task = make_task()
    monkeypatch.setattr(
        "fairseq.tasks.translation.TranslationTask.load_dataset",
        lambda self, split, **options: self.datasets.update({split: (split,)}),
    )
    task.load_dataset("valid")
    task.wrap_datasets(lambda split, dataset: ("first", split, dataset))
    task.wrap_datasets(lambda split, dataset: ("second", dataset))
    task.load_dataset("train", epoch=2, combine=True)
    assert task.datasets == {
        "valid": ("second", ("first", "valid", ("valid",))), "train": ("second", ("first", "train", ("train",)))
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "temperature", "message"),
    [
        ({"data": "one:two"}, 1.0, "--teacher-cache: needs one data folder, got 2: one:two"),
        ({}, 2.0, "--kd-temperature: must be 1.0"),
        (
            {"truncate_source": True},
            1.0,
            "--truncate-source: must be as with the teacher, .* cut to 1024 tokens",
        ),
        ({"target_lang": "de"}, 1.0, "must translate en-de as the student does, it translates en-cs"),
        ({"train_subset": "train_small"}, 1.0, "no finished cache there"),
    ],
)
def test_a_training_that_does_not_fit_is_refused_before_its_data_are_read(options, temperature, message, cache):
    with pytest.raises((ConfigError, DataError), match=message):
        attach_teacher_cache(make_task(**options), cache.folder.parent, None, temperature)


def test_a_task_that_cannot_carry_a_cache_is_refused(cache):
    with pytest.raises(ConfigError, match="needs --task compressed_translation, got SimpleNamespace"):
        attach_teacher_cache(SimpleNamespace(), cache.folder.parent, None, 1.0)


def test_a_split_without_a_cache_goes_on_without(cache, caplog):
    task = make_task()
    with caplog.at_level("INFO"):
        attach_teacher_cache(task, cache.folder.parent, None, 1.0)
        dataset = pairs()
        assert task._wraps[0]("valid", dataset) is dataset
    assert caplog.messages == [
        f"teacher cache {cache.folder.parent}: none for split 'valid', only the gold term is computed there"
    ]
