"""K hypotheses of each sentence: files, binarization, batches."""

import io
import json
import math
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, FairseqDataset, data_utils
from fairseq.data.indexed_dataset import MMapIndexedDataset, MMapIndexedDatasetBuilder
from fairseq.tasks.translation import load_langpair_dataset
from hypothesis import given
from hypothesis import strategies as st

from fairseq_compress.cli.main import main
from fairseq_compress.corpus.nbest import NBestEntry, NBestList, untranslated
from fairseq_compress.datasets.binarize_hypotheses import binarize_hypotheses
from fairseq_compress.datasets.k_best import KBestDataset, attach_k_best, hypothesis_weights, longest_hypotheses
from fairseq_compress.datasets.k_best_files import KBestFiles, k_best_prefix, write_index
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.teachers.dictionaries import word_ids
from tests.helpers.k_best_corpus import LINES, binarize_lines, copy_data, make_lists, write_nbest


class Corpus:
    """The binarized corpus of the tests with an n-best file that fits it."""

    def __init__(self, data_bin: Path, folder: Path) -> None:
        self.folder = folder
        self.data = copy_data(data_bin, folder / "bin")
        self.sources, self.lists = make_lists(folder)
        self.nbest = write_nbest(folder / "n", self.sources, self.lists)
        self.prefix = k_best_prefix(self.data, "train", "en", "cs")
        self.dictionary = Dictionary.load(str(self.data / "dict.cs.txt"))

    def binarize(self, **options: Any) -> Any:
        return binarize_hypotheses(self.nbest, self.data, "train", "en", "cs", **options)

    def pairs(self, **options: Any) -> FairseqDataset:
        """fairseq's own dataset of the train part."""
        options = {"left_pad_source": True, "left_pad_target": False, "shuffle": True} | options
        return load_langpair_dataset(
            str(self.data), "train", "en", self.dictionary, "cs", self.dictionary, combine=True, dataset_impl=None,
            upsample_primary=1, max_source_positions=1024, max_target_positions=1024, **options,
        )  # fmt: skip

    def dataset(self, k: int | None = None, temperature: float = 1.0, **options: Any) -> KBestDataset:
        return KBestDataset(self.pairs(**options), KBestFiles(self.prefix), k, temperature)

    def names(self) -> set[str]:
        return {path.name for path in self.data.iterdir()}


@pytest.fixture
def corpus(data_bin: Path, tmp_path: Path) -> Corpus:
    return Corpus(data_bin, tmp_path)


@pytest.fixture(scope="module")
def binarized(data_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """With its K-best files, not to be changed."""
    corpus = Corpus(data_bin, tmp_path_factory.mktemp("k_best"))
    corpus.binarize()
    return corpus


def test_the_verb_writes_what_the_nbest_file_says(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    before = corpus.names()
    assert main(["kd-data", "binarize", "--nbest", str(corpus.nbest), "--data", str(corpus.data)]) == 0
    hypotheses = sum(len(item.hypotheses) for item in corpus.lists)
    assert f"120 sentences, {hypotheses} hypotheses" in capsys.readouterr().err
    new = {f"train.en-cs.kbest.{name}" for name in ("bin", "idx", "offsets.npy", "scores.npy", "json")}
    assert corpus.names() == before | new
    files = KBestFiles(corpus.prefix)
    for index, item in enumerate(corpus.lists):
        places = range(*files.offsets[index : index + 2])
        assert len(places) == len(item.hypotheses)
        for place, hypothesis in zip(places, item.hypotheses, strict=True):
            expected = corpus.dictionary.encode_line(hypothesis.text, add_if_not_exist=False).tolist()
            assert files.hypotheses[place].tolist() == expected
            assert files.scores[place] == np.float32(hypothesis.score)
    assert (files.hypotheses[int(files.offsets[0])] == corpus.pairs().tgt[0]).all()
    assert corpus.dictionary.unk() in np.concatenate([files.hypotheses[i].numpy() for i in range(hypotheses)])


@given(st.text(st.sampled_from("az01 \t\u00a0\u2028\x1c"), max_size=30))
def test_encoding_is_that_of_fairseq(line: str) -> None:
    dictionary = Dictionary()
    for word in ("a", "z", "a0", "z1"):
        dictionary.add_symbol(word)
    assert word_ids(line, dictionary).tolist() == dictionary.encode_line(line, add_if_not_exist=False).tolist()


@pytest.mark.parametrize("dtype", [np.uint16, np.int64])
def test_the_index_is_that_of_fairseq(tmp_path: Path, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairseq_compress.datasets.k_best_files.AT_ONCE", 3)
    sentences = [torch.arange(length) for length in (3, 1, 7, 2, 2, 9, 1)]
    builder = MMapIndexedDatasetBuilder(str(tmp_path / "d.bin"), dtype=dtype)
    for sentence in sentences:
        builder.add_item(sentence)
    builder.finalize(str(tmp_path / "d.idx"))
    ours = io.BytesIO()
    write_index(ours, np.array([len(sentence) for sentence in sentences]), np.dtype(dtype))
    assert ours.getvalue() == (tmp_path / "d.idx").read_bytes()


def test_a_slip_by_one_line_is_noticed(corpus: Corpus) -> None:
    """The n-best file is whole and fits its own source text; the binarized data are one line off."""
    before = corpus.names()
    sources = [*corpus.sources[1:], corpus.sources[0]]
    lists = [item._replace(index=index) for index, item in enumerate([*corpus.lists[1:], corpus.lists[0]])]
    write_nbest(corpus.nbest, sources, lists)
    for options in ({}, {"text": f"{corpus.nbest}.src"}):
        with pytest.raises(DataError, match=r"list 0 \(line 1 of the source\): is of another source"):
            corpus.binarize(**options)
    assert corpus.names() == before


def test_targets_that_slipped_are_noticed(corpus: Corpus) -> None:
    """The right sources, but the hypotheses of the next line."""
    moved = [*corpus.lists[1:], corpus.lists[0]]
    lists = [item._replace(hypotheses=other.hypotheses) for item, other in zip(corpus.lists, moved, strict=True)]
    write_nbest(corpus.nbest, corpus.sources, lists)
    with pytest.raises(DataError, match=r"list 0 .*: its first hypothesis must be the binarized target, got 'z"):
        corpus.binarize()


def test_wrong_counts_and_lists_without_hypotheses(corpus: Corpus) -> None:
    before = corpus.names()
    write_nbest(corpus.nbest, corpus.sources[:-1], corpus.lists[:-1])
    with pytest.raises(DataError, match=r"has 119 lists, .*kbest must have 120"):
        corpus.binarize()
    more = NBestList(LINES, corpus.lists[0].checksum, corpus.lists[0].hypotheses)
    write_nbest(corpus.nbest, [*corpus.sources, corpus.sources[0]], [*corpus.lists, more])
    with pytest.raises(DataError, match=r"list 120 .*: the binarized data have 120 sentences only"):
        corpus.binarize()
    write_nbest(corpus.nbest, corpus.sources, [untranslated(0, corpus.lists[0].checksum), *corpus.lists[1:]])
    with pytest.raises(DataError, match=r"list 0 .*: has no hypothesis; kd-data select leaves such sentences out"):
        corpus.binarize()
    assert corpus.names() == before


def test_an_altered_nbest_file_leaves_nothing(corpus: Corpus) -> None:
    before = corpus.names()
    text = corpus.nbest.read_text()
    corpus.nbest.write_text(text[: text.rindex("\t") + 1] + "z1\n")
    with pytest.raises(DataError):
        corpus.binarize()
    assert corpus.names() == before


def test_unknown_words_in_a_source(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence with a word that the dictionary lacks has no text to compare, unless the text is given."""
    dictionary = (corpus.data / "dict.en.txt").read_text().splitlines()
    word = corpus.sources[0].split()[0]
    smaller = "".join(f"{line}\n" for line in dictionary if line.split()[0] != word)
    for language in ("en", "cs"):
        (corpus.data / f"dict.{language}.txt").write_text(smaller)
    entries = Dictionary.load(str(corpus.data / "dict.en.txt"))
    for language in ("en", "cs"):
        lines = (corpus.folder / f"train.{language}").read_text().splitlines()
        binarize_lines(corpus.data / f"train.en-cs.{language}", lines, entries)
    with_word = sum(word in line.split() for line in corpus.sources)
    arguments = ["kd-data", "binarize", "--nbest", str(corpus.nbest), "--data", str(corpus.data)]
    assert main(arguments) == 0
    assert f", {with_word} sources with unknown words not compared" in capsys.readouterr().err
    assert json.loads(Path(f"{corpus.prefix}.json").read_text())["unknown_sources"] == with_word
    assert main([*arguments, "--source", f"{corpus.nbest}.src"]) == 0
    assert "not compared" not in capsys.readouterr().err


def test_a_folder_without_binarized_text(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in [
        (["--data", corpus.folder / "none"], "none is given"),
        (["--data", corpus.data, "--split", "test"], r"has no binarized test.en-cs.en"),
        (["--data", corpus.data, "--source-lang", "de"], r"has no dict.de.txt"),
    ]:
        assert main(["kd-data", "binarize", "--nbest", str(corpus.nbest), *map(str, options)]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["bin", "idx", "offsets.npy", "scores.npy", "json"])
def test_missing_and_altered_files(corpus: Corpus, name: str) -> None:
    corpus.binarize()
    path = Path(f"{corpus.prefix}.{name}")
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(DataError):
        KBestFiles(corpus.prefix).check_files()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError):
        KBestFiles(corpus.prefix).check_files()
    path.unlink()
    with pytest.raises(DataError):
        KBestFiles(corpus.prefix)


def test_weights_by_hand() -> None:
    scores = np.array([math.log(0.5), math.log(0.25), math.log(0.125)], dtype=np.float32)
    assert hypothesis_weights(scores, 1.0) == pytest.approx([4 / 7, 2 / 7, 1 / 7], rel=1e-6)
    assert hypothesis_weights(scores, 0.5) == pytest.approx([16 / 21, 4 / 21, 1 / 21], rel=1e-6)
    assert hypothesis_weights(scores, 1e-4).tolist() == [1.0, 0.0, 0.0]
    assert hypothesis_weights(scores, 1e9) == pytest.approx([1 / 3] * 3)
    assert hypothesis_weights(np.array([-1e4], dtype=np.float32), 0.01).tolist() == [1.0]


def test_longest_against_a_loop(binarized: Corpus) -> None:
    files = KBestFiles(binarized.prefix)
    for k in (1, 2, 9):
        counts = np.minimum(np.diff(files.offsets), k)
        found = longest_hypotheses(files.hypotheses.sizes, files.offsets, counts)
        for index, count in enumerate(counts):
            places = range(int(files.offsets[index]), int(files.offsets[index] + count))
            assert found[index] == max(len(files.hypotheses[place]) for place in places)


def equal(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(equal(ours[key], theirs[key]) for key in theirs)
    return torch.equal(ours, theirs) if isinstance(theirs, torch.Tensor) else ours == theirs


@pytest.mark.parametrize("left_pad_target", [False, True])
@pytest.mark.parametrize("pad_to_multiple", [1, 8])
def test_one_hypothesis_is_the_batch_of_fairseq(binarized: Corpus, left_pad_target: bool, pad_to_multiple: int) -> None:
    options = {"left_pad_target": left_pad_target, "pad_to_multiple": pad_to_multiple}
    ours, theirs = binarized.dataset(k=1, **options), binarized.pairs(**options)
    indices = np.arange(LINES)
    assert np.array_equal(ours.num_tokens_vec(indices), theirs.num_tokens_vec(indices))
    assert [ours.num_tokens(i) for i in indices] == [theirs.num_tokens(i) for i in indices]
    assert [ours.size(i) for i in indices] == [theirs.size(i) for i in indices]
    for limit in ((8, 8), 7):
        kept, dropped = theirs.filter_indices_by_size(indices, limit)
        assert dropped
        assert np.array_equal(ours.filter_indices_by_size(indices, limit)[0], kept)
        assert ours.filter_indices_by_size(indices, limit)[1] == dropped
    batches = []
    for dataset in (ours, theirs):
        with data_utils.numpy_seed(3):
            order = dataset.ordered_indices()
        batches.append(dataset.batch_by_size(order, max_tokens=60, required_batch_size_multiple=8))
    for one, other in zip(*batches, strict=True):
        assert np.array_equal(one, other)
        batch = ours.collater([ours[int(index)] for index in one])
        rows = batch.pop("k_best")
        stock = theirs.collater([theirs[int(index)] for index in other])
        assert equal(batch, stock)
        assert equal(rows["target"], stock["target"])
        assert equal(rows["prev_output_tokens"], stock["net_input"]["prev_output_tokens"])
        assert rows["sources"].tolist() == list(range(len(one)))
        assert rows["weights"].tolist() == [1.0] * len(one)
        assert rows["ntokens"] == rows["weighted_ntokens"] == stock["ntokens"]


@pytest.mark.parametrize("left_pad_target", [False, True])
def test_rows_against_a_loop(binarized: Corpus, left_pad_target: bool) -> None:
    dataset = binarized.dataset(k=3, temperature=0.5, left_pad_target=left_pad_target)
    padding, eos = binarized.dictionary.pad(), binarized.dictionary.eos()
    batch = dataset.collater([dataset[index] for index in (5, 17, 2, 40, 41)])
    rows, row = batch["k_best"], 0
    for place, index in enumerate(batch["id"].tolist()):
        hypotheses: list[NBestEntry] = binarized.lists[index].hypotheses[:3]
        total = sum(math.exp(hypothesis.score / 0.5) for hypothesis in hypotheses)
        for hypothesis in hypotheses:
            ids = binarized.dictionary.encode_line(hypothesis.text, add_if_not_exist=False).tolist()
            empty = [padding] * (rows["target"].size(1) - len(ids))
            shifted = [eos, *ids[:-1]]
            expected = (empty + ids, empty + shifted) if left_pad_target else (ids + empty, shifted + empty)
            assert (rows["target"][row].tolist(), rows["prev_output_tokens"][row].tolist()) == expected
            assert rows["sources"][row] == place
            assert rows["weights"][row].item() == pytest.approx(math.exp(hypothesis.score / 0.5) / total, rel=1e-6)
            row += 1
    assert row == len(rows["target"])
    lengths = rows["target"].ne(padding).sum(1)
    assert rows["ntokens"] == lengths.sum()
    assert rows["weighted_ntokens"] == pytest.approx((rows["weights"] * lengths).sum().item())
    assert rows["weights"].dtype == torch.float64
    assert dataset.collater([]) == {}


def test_sizes_count_all_hypotheses(binarized: Corpus) -> None:
    dataset = binarized.dataset(k=2)
    for index, item in enumerate(binarized.lists):
        lengths = [len(hypothesis.text.split()) + 1 for hypothesis in item.hypotheses[:2]]
        source = len(binarized.sources[index].split()) + 1
        assert dataset.num_tokens(index) == max(source, len(lengths) * max(lengths))
        assert dataset.size(index) == (source, max(lengths))
    with data_utils.numpy_seed(1):
        order = dataset.ordered_indices()
    batches = dataset.batch_by_size(order, max_tokens=70, required_batch_size_multiple=1)
    assert sorted(np.concatenate(batches)) == list(range(LINES))
    assert all(dataset.num_tokens_vec(batch).max() * len(batch) <= 70 for batch in batches)
    kept, dropped = dataset.filter_indices_by_size(np.arange(LINES), (99, 8))
    assert dropped == [index for index in range(LINES) if dataset.longest[index] > 8]
    assert len(kept) + len(dropped) == LINES
    with pytest.raises(ConfigError, match=r"--max-tokens: must be at least 24 for sentence \d+ with its 2 hypotheses"):
        dataset.batch_by_size(order, max_tokens=10)


def test_a_pickled_dataset_opens_its_files_again(binarized: Corpus) -> None:
    dataset = binarized.dataset(k=2)
    again = pickle.loads(pickle.dumps(dataset.files))
    assert isinstance(again.hypotheses, MMapIndexedDataset)
    assert np.array_equal(again.scores, dataset.files.scores)


def test_tasks_that_cannot_carry_hypotheses() -> None:
    with pytest.raises(ConfigError, match="needs --task compressed_translation, got SimpleNamespace"):
        attach_k_best(SimpleNamespace(), None, 1.0)
    task = SimpleNamespace(wrap_datasets=None, cfg=SimpleNamespace(data="a:b", num_batch_buckets=0))
    with pytest.raises(ConfigError, match="needs one data folder, got 2: a:b"):
        attach_k_best(task, None, 1.0)
    task.cfg = SimpleNamespace(data="a", num_batch_buckets=3)
    with pytest.raises(ConfigError, match="needs --num-batch-buckets 0, got 3"):
        attach_k_best(task, None, 1.0)
