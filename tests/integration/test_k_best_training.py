"""Training on K-best data with the real commands."""

import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from fairseq_compress.cli.main import main
from fairseq_compress.datasets.k_best import KBestDataset, attach_k_best
from fairseq_compress.errors import DataError
from fairseq_compress.tasks.compressed_translation import CompressedTranslationConfig, CompressedTranslationTask
from tests.conftest import TINY, run_command, train_in_two_processes
from tests.helpers.k_best_corpus import copy_data, make_lists, write_nbest

MODEL = [*TINY, "--arch", "transformer_small", "--dropout", "0.2"]
K_BEST = ["--criterion", "sequence_level_kd", "--label-smoothing", "0.1"]


@pytest.fixture(scope="module")
def data(data_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Binarized text with its K-best files."""
    folder = tmp_path_factory.mktemp("k_best")
    data = copy_data(data_bin, folder / "bin")
    nbest = write_nbest(folder / "n", *make_lists(folder))
    assert main(["kd-data", "binarize", "--nbest", str(nbest), "--data", str(data)]) == 0
    return data


@pytest.fixture
def arguments(data: Path, train_arguments: list[str]) -> list[str]:
    """Training on the K-best data; one checkpoint, at the end."""
    base = [str(data), *train_arguments[1:]]
    return [argument for argument in base if argument != "--no-last-checkpoints"]


def train(folder: Path, *arguments: object, **environment: str) -> str:
    return run_command("fairseq-train", *arguments, "--save-dir", folder, **environment).stdout


def load(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint_last.pt", weights_only=False)


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Weights and the state of the optimizer, bit by bit."""
    assert one["model"].keys() == other["model"].keys()
    for key, weight in one["model"].items():
        assert torch.equal(weight, other["model"][key]), key
    first, second = (state["last_optimizer_state"]["state"] for state in (one, other))
    assert all(torch.equal(first[i]["exp_avg"], second[i]["exp_avg"]) for i in first)
    assert one["optimizer_history"][-1]["num_updates"] == other["optimizer_history"][-1]["num_updates"] > 0


def test_one_hypothesis_equals_training_on_the_best_translations(arguments: list[str], tmp_path: Path) -> None:
    """Batches, their order, dropout and all: the same checkpoint; stock fairseq's within rounding."""
    options = [*arguments, *MODEL, "--max-update", 12]
    train(tmp_path / "k", *options, *K_BEST, "--k-best", 1)
    plain = ["--criterion", "fused_label_smoothed_cross_entropy", "--label-smoothing", "0.1"]
    train(tmp_path / "fused", *options, *plain)
    train(tmp_path / "stock", *options, "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1")
    ours, fused, stock = (load(tmp_path / name) for name in ("k", "fused", "stock"))
    assert_equal(ours, fused)
    for key, weight in stock["model"].items():
        torch.testing.assert_close(ours["model"][key], weight, rtol=1e-3, atol=1e-4, msg=key)


def test_stop_and_resume_is_bit_equal(arguments: list[str], tmp_path: Path) -> None:
    """With worker processes, gradient accumulation and a stop in a later epoch; each epoch is validated."""
    options = [*arguments, *MODEL, *K_BEST, "--autocast-dtype", "bfloat16", "--update-freq", 2]
    options += ["--sequence-kd-temperature", 0.5, "--max-tokens", 600]
    options.remove("--disable-validation")
    for name, stops in (("whole", [8]), ("resumed", [5, 8])):
        for updates in stops:
            log = train(tmp_path / name, *options, "--max-update", updates, "--num-workers", len(stops) - 1)
    assert_equal(load(tmp_path / "whole"), load(tmp_path / "resumed"))
    assert load(tmp_path / "whole")["extra_state"]["train_iterator"]["epoch"] >= 2
    assert "no hypotheses for split 'valid', the loss there is that of the reference" in log
    assert "120 sentences, " in log
    assert " valid on 'valid' subset" in log


def test_two_processes_give_the_gradient_of_one(arguments: list[str], tmp_path: Path) -> None:
    """One plain SGD step on two batches: two gloo processes with a batch each, or one that accumulates both."""
    base = [*arguments, *TINY, "--arch", "transformer_small", "--dropout", 0, *K_BEST, "--max-update", 1,
            "--lr", "1.0", "--clip-norm", 0, "--ddp-backend", "legacy_ddp"]  # fmt: skip
    base[base.index("adam")] = "sgd"
    train(tmp_path / "one", *base, "--update-freq", 2)
    train_in_two_processes(*base, "--update-freq", 1, "--save-dir", tmp_path / "two")
    one, two = load(tmp_path / "one")["model"], load(tmp_path / "two")["model"]
    for key, weight in one.items():
        torch.testing.assert_close(two[key], weight, rtol=1e-5, atol=1e-6, msg=key)


def make_task(data: Path, **options: Any) -> CompressedTranslationTask:
    cfg = CompressedTranslationConfig(**({"data": str(data), "source_lang": "en", "target_lang": "cs"} | options))
    cfg.train_subset, cfg.dataset_impl, cfg.required_seq_len_multiple = "train", None, 1
    return CompressedTranslationTask.setup_task(Namespace(**vars(cfg)))


def load_train(data: Path, **options: Any) -> KBestDataset:
    task = make_task(data, **options)
    attach_k_best(task, None, 1.0)
    task.load_dataset("train", combine=True)
    return task.dataset("train")


def test_the_task_loads_and_truncates(data: Path) -> None:
    dataset = load_train(data, truncate_source=True, max_source_positions=4)
    assert dataset.collater([dataset[0], dataset[1]])["net_input"]["src_tokens"].size(1) == 4
    assert isinstance(dataset, KBestDataset)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train.en-cs.en.bin", r"made for other data: train source.bin was \w{64}, is \w{64}; run kd-data bin"),
        ("train.en-cs.cs.bin", "made for other data: train target.bin was"),
        ("dict.en.txt", r"made for other dictionaries: source sha256 was \w{64}, is"),
        ("dict.cs.txt", "made for other dictionaries: target sha256 was"),
        ("train.en-cs.kbest.bin", "SHA-256 must be"),
        ("train.en-cs.kbest.scores.npy", "SHA-256 must be"),
        ("train.en-cs.kbest.json", r"cannot read .*kd-data binarize writes it"),
        ("train.en-cs.kbest.idx", "idx missing"),
    ],
)
def test_hypotheses_of_something_else_are_refused(data: Path, tmp_path: Path, name: str, message: str) -> None:
    folder = tmp_path / "bin"
    shutil.copytree(data, folder)
    path = folder / name
    if name.startswith("dict"):
        first, second, *rest = path.read_text().splitlines(keepends=True)
        path.write_text("".join([second, first, *rest]))
    elif message.startswith(("cannot read", r"cannot read", "idx missing")):
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    with pytest.raises(DataError, match=message):
        load_train(folder)


def test_an_error_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    options = [*arguments, "--max-tokens", 20, *MODEL, *K_BEST, "--save-dir", tmp_path]
    result = run_command("fairseq-train", *options, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("fairseq-compress: error: --max-tokens: must be at least ")
