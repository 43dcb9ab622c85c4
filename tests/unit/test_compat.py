"""The mends of fairseq: no sentence is lost, checkpoints load safely, our errors are one line."""

import argparse
import io
import os
import pickle
import random
import subprocess
import sys
import zipfile

import numpy as np
import omegaconf
import pytest
import torch
from fairseq import checkpoint_utils, optim, options
from fairseq.data import Dictionary, LanguagePairDataset, ListDataset, data_utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_compress import compat
from fairseq_compress.checkpoint.load import load_state
from fairseq_compress.errors import CheckpointError
from fairseq_compress.tasks.compressed_translation import CompressedTranslationConfig, CompressedTranslationTask
from tests.helpers.optimizers import OPTIMIZERS

compat.apply()  # before the tests name functions of fairseq, whatever was imported first
COUNTS = [1, 5, 9, 1071]


def pairs(count: int) -> LanguagePairDataset:
    dictionary = Dictionary()
    lengths = np.random.RandomState(count).randint(2, 30, count)
    sentences = ListDataset([torch.randint(4, 50, (int(n),)) for n in lengths], lengths)
    for symbol in range(50):
        dictionary.add_symbol(str(symbol))
    return LanguagePairDataset(sentences, lengths, dictionary, sentences, lengths, dictionary)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("multiple", [1, 3, 8, 64])
@pytest.mark.parametrize("limits", [{"max_tokens": 200}, {"max_sentences": 4}, {"max_tokens": 100000}])
def test_batches_hold_every_sentence_once_and_in_order(count, multiple, limits):
    dataset = pairs(count)
    indices = dataset.ordered_indices()
    batches = dataset.batch_by_size(indices, required_batch_size_multiple=multiple, **limits)
    assert np.concatenate(batches).tolist() == indices.tolist()
    for batch in batches:
        assert len(batch) <= limits.get("max_sentences", count)
        longest = max(dataset.num_tokens(index) for index in batch)
        assert longest * len(batch) <= limits.get("max_tokens", 10**9)


def test_stock_fairseq_would_lose_sentences():
    """If this fails, fairseq was repaired and the mend can go."""
    dataset = pairs(9)
    stock = data_utils.batch_by_size._fairseq_compress_original
    batches = stock(
        dataset.ordered_indices(), dataset.num_tokens, max_tokens=100000, required_batch_size_multiple=8
    )  # fmt: skip
    assert sum(map(len, batches)) == 8


def test_no_sentences_give_no_batches():
    assert pairs(9).batch_by_size(np.array([], dtype=np.int64), max_tokens=100, required_batch_size_multiple=8) == []


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize(
    ("task_class", "config"),
    [(TranslationTask, TranslationConfig), (CompressedTranslationTask, CompressedTranslationConfig)],
)
def test_an_epoch_holds_every_pair_for_any_task(task_class, config, count, shards):
    dataset = pairs(count)
    task = task_class(config(), dataset.src_dict, dataset.tgt_dict)
    seen = []
    for shard in range(shards):
        iterator = task.get_batch_iterator(
            dataset, max_tokens=300, required_batch_size_multiple=8, num_shards=shards, shard_id=shard,
            disable_iterator_cache=True,
        ).next_epoch_itr(shuffle=True)  # fmt: skip
        seen += [int(number) for batch in iterator if batch for number in batch["id"]]
    assert sorted(seen) == list(range(count))


HISTORY = {"criterion_name": "A", "optimizer_name": "B", "lr_scheduler_state": {}, "num_updates": 3}


def save(path, **extra):
    torch.save(
        {"model": {"w": torch.ones(2)}, "args": None, "optimizer_history": [HISTORY], "extra_state": {}} | extra, path
    )


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("load", [load_state, checkpoint_utils.load_checkpoint_to_cpu])
def test_a_malicious_pickle_is_refused_and_nothing_runs(load, tmp_path):
    path, marker = tmp_path / "evil.pt", tmp_path / "ran"
    save(path, extra_state=Malicious(marker))
    with pytest.raises(CheckpointError, match=r"evil\.pt: refused, it holds the class (posix|nt)\.system"):
        load(str(path))
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the file is a real attack: without the safety it runs
    assert marker.exists()


class NotListed:
    pass


def test_a_class_that_is_not_listed_is_refused_by_name(tmp_path):
    save(tmp_path / "c.pt", extra_state=NotListed())
    with pytest.raises(CheckpointError, match=r"holds the class \S*test_compat\.NotListed, which is not on"):
        load_state(tmp_path / "c.pt")


def test_what_fairseq_writes_loads(tmp_path):
    raw = omegaconf.OmegaConf.create({"model": {"layers": 3, "names": ["a", "b"]}})
    save(tmp_path / "c.pt", args=argparse.Namespace(arch="transformer", lr=[0.1]), cfg=raw)
    state = load_state(tmp_path / "c.pt")
    assert state["args"] == argparse.Namespace(arch="transformer", lr=[0.1])
    assert state["cfg"].model.names[1] == "b"


RECONSTRUCT, SCALAR = np.array([1]).__reduce__()[0], np.float64(1).__reduce__()[0]
NUMPY_VALUES = [
    *(
        np.float64(1.5),
        np.float32(-0.1),
        np.int64(7),
        np.bool_(True),
        np.complex64(1 - 2j),
        np.str_("čau"),
        np.bytes_(b"x"),
    ),
    *(
        np.array([3, 1, 2]),
        np.array([[1.5, 2.5], [3.5, 4.5]], order="F"),
        np.zeros((0, 3)),
        np.array(2.5),
        np.array([""]),
    ),
    *(np.array(["ab", "c"]), np.array([1, 2], dtype=">i4"), np.arange(6, dtype=np.float16).reshape(2, 3)[:, ::2]),
]


@pytest.mark.parametrize("load", [load_state, checkpoint_utils.load_checkpoint_to_cpu])
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"], ids=["numpy 1", "numpy 2"])
def test_numbers_texts_and_arrays_of_numpy_load_as_they_were(load, core, tmp_path, monkeypatch):
    """``--eval-bleu`` leaves them in ``extra_state``; numpy 1 and 2 write other names of modules."""
    extra = {"best": NUMPY_VALUES[0], "nested": ({"a": NUMPY_VALUES}, NUMPY_VALUES[0].dtype)}
    save(tmp_path / "c.pt", extra_state=extra)
    rename_modules(tmp_path / "c.pt", SCALAR.__module__, f"{core}.multiarray")
    extra = load(str(tmp_path / "c.pt"))["extra_state"]
    found, dtype = extra["nested"]
    assert type(extra["best"]) is np.float64
    assert extra["best"] == 1.5
    assert dtype == np.dtype("f8")
    for value, ours in zip(NUMPY_VALUES, found["a"], strict=True):
        assert type(ours) is type(value)
        assert (ours.dtype, ours.shape) == (value.dtype, value.shape)
        assert np.array_equal(ours, value)
    assert pickle.loads(pickle.dumps(extra))["best"] == 1.5


def rename_modules(path, old, new):
    """Rewrite the pickle in a checkpoint file with other names of modules."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data.replace(f"c{old}\n".encode(), f"c{new}\n".encode()))


def test_other_processes_receive_numpy_values(monkeypatch):
    """fairseq sends a checkpoint as a pickle, which the others read without its loader of files."""
    sent = io.BytesIO()
    torch.save({"a": np.array([1.5, 2.5])}, sent)
    parts = iter([torch.tensor([len(sent.getvalue())]), torch.tensor(list(sent.getvalue()), dtype=torch.uint8)])
    monkeypatch.setattr(distributed_utils, "get_rank", lambda group: 1)
    monkeypatch.setattr(distributed_utils, "broadcast", lambda tensor, src, group: tensor.copy_(next(parts)))
    received = distributed_utils._broadcast_object_slow(None, 0, None, torch.device("cpu"))["a"]
    assert type(received) is np.ndarray
    assert received.tolist() == [1.5, 2.5]


def test_torch_itself_loads_what_it_did(tmp_path):
    """Numpy's values are on the list of classes only while a checkpoint is read."""
    torch.save({"a": np.arange(3)}, tmp_path / "a.pt")
    with pytest.raises(pickle.UnpicklingError, match="numpy"):
        torch.load(tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=False)["a"].tolist() == [0, 1, 2]


class Lie:
    """Pickles as a call of ``function`` with a state of our choice."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


def double(names=None, fields=None, size=-1, alignment=-1, flags=0):
    return Lie(np.dtype, "f8", False, True, state=(3, "<", None, names, fields, size, alignment, flags))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([{"a": 1}], dtype=object), "numpy values of dtype 'O8'"),
        (np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), "numpy values of dtype 'V12'"),
        (np.datetime64("2020-01-01"), "numpy values of dtype 'M8'"),
        # bytes that would become pointers
        (Lie(SCALAR, double(("a",), {"a": ("O", 0)}, 8, 8, 63), b"x" * 8), "numpy values of a structured dtype"),
        (Lie(SCALAR, double(), b"short"), "bytes and shape differ"),
        (Lie(SCALAR, 3, b"short"), "no dtype"),
        (Lie(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (-2, -4), double(), False, b"x" * 64)), "bytes and shape"),
        (Lie(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (9,), double(), False, b"x" * 64)), "bytes and shape"),
        (Lie(RECONSTRUCT, dict, (0,), b"b"), "an array of the class"),
        (Lie(np.fromfile, "/dev/zero"), "the class numpy.fromfile"),
    ],
)  # fmt: skip
def test_what_is_no_plain_number_or_text_of_numpy_is_refused(value, message, tmp_path):
    save(tmp_path / "c.pt", extra_state=value)
    with pytest.raises(CheckpointError, match=rf"c\.pt: refused, it holds .*{message}") as refusal:
        load_state(tmp_path / "c.pt")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("keys", [("model", "cfg"), ("model", "args"), ("model", "cfg", "extra_state"), ("model",)])
def test_a_checkpoint_of_weights_and_configuration_alone_loads(keys, tmp_path):
    whole = {
        "model": {"w": torch.ones(2)},
        "cfg": {"model": {"layers": 3}},
        "args": argparse.Namespace(arch="transformer"),
        "extra_state": {},
    }
    torch.save({key: whole[key] for key in keys}, tmp_path / "r.pt")
    for load in (load_state, checkpoint_utils.load_checkpoint_to_cpu):
        state = load(str(tmp_path / "r.pt"))
        assert torch.equal(state["model"]["w"], torch.ones(2))
        assert state["optimizer_history"][-1]["num_updates"] == 0
        assert state["last_optimizer_state"] is None
    assert state["extra_state"]["train_iterator"]["iterations_in_epoch"] == 0


def test_a_checkpoint_without_weights_is_called_that(tmp_path):
    torch.save({"cfg": {"model": {"layers": 3}}}, tmp_path / "r.pt")
    for load in (load_state, checkpoint_utils.load_checkpoint_to_cpu):
        with pytest.raises(CheckpointError, match=r"^checkpoint \S*r\.pt: has no weights under the key 'model'"):
            load(str(tmp_path / "r.pt"))


def test_truncated_missing_and_foreign_files(tmp_path):
    save(tmp_path / "whole.pt", model={"w": torch.randn(1000)})
    whole = (tmp_path / "whole.pt").read_bytes()
    for share in (0.0, 0.1, 0.5, 0.99):
        (tmp_path / "cut.pt").write_bytes(whole[: int(len(whole) * share)])
        for load in (load_state, checkpoint_utils.load_checkpoint_to_cpu):
            with pytest.raises(CheckpointError, match=r"cut\.pt: .*(truncated|refused)"):
                load(str(tmp_path / "cut.pt"))
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.pt"):
        load_state(tmp_path / "text.pt")
    with pytest.raises(CheckpointError, match=r"none\.pt: no such file"):
        load_state(tmp_path / "none.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="no weights under the key 'model'"):
        load_state(tmp_path / "list.pt")


def test_flipped_bytes_give_one_clear_error_or_a_whole_checkpoint(tmp_path):
    save(tmp_path / "whole.pt", args=argparse.Namespace(arch="transformer", lr=[0.1]), cfg={"model": {"layers": 3}})
    whole, draw = (tmp_path / "whole.pt").read_bytes(), random.Random(1)
    refusals = []
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        (tmp_path / "flipped.pt").write_bytes(damaged)
        for load in (load_state, checkpoint_utils.load_checkpoint_to_cpu):
            try:
                load(str(tmp_path / "flipped.pt"))
            except CheckpointError as error:
                refusals.append(str(error))
    assert refusals
    assert not any("\n" in message for message in refusals)


def test_safety_stays_on_for_the_process(tmp_path):
    compat.apply()
    with open(tmp_path / "p.pkl", "wb") as file:
        pickle.dump(NotListed(), file)
    torch.save(NotListed(), tmp_path / "p.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "p.pt")


def test_apply_twice_changes_nothing():
    compat.apply()

    def patched():
        copy = checkpoint_utils.PathManager.copy
        return data_utils.batch_by_size, checkpoint_utils.load_checkpoint_to_cpu, copy, sys.excepthook

    before = patched()
    compat.apply()
    assert before == patched()


def test_a_copy_of_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    source, last = tmp_path / "checkpoint1.pt", tmp_path / "checkpoint_last.pt"
    source.write_bytes(b"new" * 1000)
    last.write_bytes(b"old")
    seen = []
    monkeypatch.setattr(os, "replace", lambda *paths: seen.append(last.read_bytes()) or os.rename(*paths))
    assert checkpoint_utils.PathManager.copy(str(source), str(last), overwrite=True)
    assert seen == [b"old"]
    assert last.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint1.pt", "checkpoint_last.pt"]


def test_our_errors_are_one_line_and_status_1():
    code = "import fairseq, fairseq_compress.errors as e; raise e.ConfigError('--x: must be 1, got 2')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "fairseq-compress: error: --x: must be 1, got 2"
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_that_is_reset_steps_as_a_new_one(name, tmp_path):
    """Three steps, a reset, two more: as a new optimizer from the weights of the third."""
    given = [str(tmp_path), "--arch", "transformer", "--optimizer", name, "--lr", "0.1", *OPTIMIZERS[name]]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), given))
    weights = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))]
    used = optim.build_optimizer(cfg.optimizer, weights)
    step(used, 3)
    copies = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    compat.reset_optimizer(used)
    step(used, 2, seed=9)
    step(optim.build_optimizer(cfg.optimizer, copies), 2, seed=9)
    assert all(torch.equal(weight, copy) for weight, copy in zip(weights, copies, strict=True))


def step(optimizer, count, seed=0):
    draw = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for weight in optimizer.params:
            weight.grad = torch.randn(weight.shape, generator=draw)
        optimizer.step()
