"""Averaging of checkpoints: values against a slow loop, ties, refusals, selection of files."""

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fairseq_compress.checkpoint.average import average_checkpoints, select_checkpoints, write_average
from fairseq_compress.cli import average as verb
from fairseq_compress.cli.main import main
from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.evaluation.sizes import checkpoint_facts
from fairseq_compress.functional.ties import tied_groups

TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
VOCABULARY, WIDTH = 50, 16


def make_weights(seed: int, tie: bool = True, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A model with all of its embeddings tied, a matrix, two constant gains and fairseq's buffers."""
    generator = torch.Generator().manual_seed(seed)

    def random_matrix(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    embedding = random_matrix(VOCABULARY, WIDTH)
    weights = {key: embedding if tie else embedding + i for i, key in enumerate(TIED)}
    weights["encoder.layers.0.fc1.weight"] = random_matrix(2 * WIDTH, WIDTH)
    weights["encoder.layers.0.norm.weight"] = torch.ones(WIDTH, dtype=dtype)
    weights["encoder.layers.1.norm.weight"] = torch.ones(WIDTH, dtype=dtype)
    weights["encoder.version"] = torch.Tensor([3])
    weights["decoder.count"] = torch.tensor([7])
    return weights


def save(path: Path, weights: dict[str, Tensor], updates: int = 10) -> Path:
    """Write a checkpoint as fairseq's trainer does, with the state of Adam in it."""
    moments = {i: {"exp_avg": torch.zeros_like(w), "step": updates} for i, w in enumerate(weights.values())}
    state: dict[str, Any] = {
        "args": None,
        "cfg": {"model": {"_name": "transformer"}, "tag": path.name},
        "model": weights,
        "criterion": None,
        "optimizer_history": [
            {
                "criterion_name": "C",
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {"best": 1},
                "num_updates": u,
            }
            for u in (1, updates)
        ],
        "task_state": {},
        "extra_state": {"metrics": {"train": 1}, "train_iterator": {"epoch": 4}, "val_loss": 2.0},
        "last_optimizer_state": {"state": moments},
    }
    torch.save(state, path)
    return path


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [save(tmp_path / f"checkpoint{i}.pt", make_weights(i), updates=100 * i) for i in (1, 2, 3)]


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def test_mean_equals_a_slow_loop_over_numbers(three: list[Path]) -> None:
    mean = average_checkpoints(three)["model"]
    inputs = [load(path)["model"] for path in three]
    assert list(mean) == list(inputs[0])
    for key in (*TIED, "encoder.layers.0.fc1.weight"):
        columns = zip(*(weights[key].flatten().tolist() for weights in inputs), strict=True)
        expected = torch.tensor([sum(column) / 3 for column in columns], dtype=torch.float64).float()
        assert torch.equal(mean[key].flatten(), expected)


def test_order_of_inputs_does_not_change_one_bit(three: list[Path]) -> None:
    forward = average_checkpoints(three)
    for seed in range(3):
        shuffled = random.Random(seed).sample(three, 3)
        other = average_checkpoints(shuffled)
        assert all(torch.equal(other["model"][key], value) for key, value in forward["model"].items())
        assert other["extra_state"] == forward["extra_state"]
        assert other["cfg"] == forward["cfg"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_average_of_one_is_the_same_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = make_weights(1, dtype=dtype)
    weights["encoder.layers.0.fc1.weight"][0, 0] = -0.0
    mean = average_checkpoints([save(tmp_path / "one.pt", weights)])["model"]
    for key, tensor in weights.items():
        assert mean[key].dtype == tensor.dtype
        assert torch.equal(mean[key].view(torch.uint8), tensor.view(torch.uint8))


def test_tied_weights_stay_one_tensor_in_a_small_file(tmp_path: Path, three: list[Path]) -> None:
    output = tmp_path / "average.pt"
    write_average(three, output)
    weights = load(output)["model"]
    assert len({weights[key].data_ptr() for key in TIED}) == 1
    assert weights["encoder.layers.0.norm.weight"].data_ptr() != weights["encoder.layers.1.norm.weight"].data_ptr()
    parameters = VOCABULARY * WIDTH + 2 * WIDTH * WIDTH + 2 * WIDTH
    sizes = checkpoint_facts(output)
    assert sizes == {
        "parameters": parameters,
        "bytes": 4 * parameters + 8,  # and a buffer of one 64-bit integer
        "architecture": "transformer",
        "encoder_layers": 2,
        "updates": 300,
        "bytes_on_disk": os.path.getsize(output),
        "bytes_float32": 4 * parameters,
        "bytes_float32_of_embeddings": 4 * VOCABULARY * WIDTH,
    }
    untied = save(tmp_path / "untied.pt", make_weights(1, tie=False))
    write_average([untied], tmp_path / "untied-average.pt")
    assert checkpoint_facts(untied)["parameters"] == parameters + 2 * VOCABULARY * WIDTH
    saved = os.path.getsize(tmp_path / "untied-average.pt") - os.path.getsize(output)
    assert saved >= 2 * VOCABULARY * WIDTH * 4


def test_copies_that_a_gpu_run_makes_of_tied_weights_become_one_again(tmp_path: Path, three: list[Path]) -> None:
    copied = save(tmp_path / "gpu.pt", {key: tensor.clone() for key, tensor in make_weights(4).items()})
    assert tied_groups(load(copied)["model"], by_value=True) == tied_groups(load(three[0])["model"], by_value=True)
    write_average([*three, copied], tmp_path / "average.pt")
    weights = load(tmp_path / "average.pt")["model"]
    assert len({weights[key].data_ptr() for key in TIED}) == 1


def test_views_of_one_storage_that_are_not_the_same_view_are_not_tied() -> None:
    both = torch.arange(8.0)
    square = torch.arange(4.0).view(2, 2)
    weights = {"left": both[:4], "right": both[4:], "square": square, "transposed": square.t()}
    assert tied_groups(weights, by_value=True) == [("left",), ("right",), ("square",), ("transposed",)]


def test_everything_else_comes_from_the_newest_and_training_state_goes(three: list[Path]) -> None:
    newest = save(three[0].with_name("checkpoint0.pt"), make_weights(9), updates=5000)
    state = average_checkpoints([newest, *three])
    assert state["cfg"]["tag"] == "checkpoint0.pt"
    assert state["last_optimizer_state"] is None
    assert state["optimizer_history"] == [
        {"criterion_name": "C", "optimizer_name": "FairseqAdam", "lr_scheduler_state": {}, "num_updates": 5000}
    ]
    assert state["extra_state"]["averaged_from"] == [
        {"name": "checkpoint0.pt", "num_updates": 5000},
        *({"name": f"checkpoint{i}.pt", "num_updates": 100 * i} for i in (1, 2, 3)),
    ]
    assert state["extra_state"]["train_iterator"]["epoch"] == 1
    assert "metrics" not in state["extra_state"]


def test_different_ties_are_refused(tmp_path: Path, three: list[Path]) -> None:
    for name in ("a-untied.pt", "z-untied.pt"):  # before and after the others in order of path
        untied = save(tmp_path / name, make_weights(5, tie=False))
        message = rf"embed_tokens\.weight = .* are tied in .*checkpoint1\.pt, but not all of them in .*{name}"
        with pytest.raises(CheckpointError, match=message):
            average_checkpoints([three[0], untied])


def change(weights: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    """One of the ways in which a checkpoint does not fit the others."""
    matrix = "encoder.layers.0.fc1.weight"
    if what == "keys":
        return {key + ("x" if "norm" in key else ""): value for key, value in weights.items()}
    changed: dict[str, dict[str, Tensor]] = {
        "shape": {matrix: torch.zeros(WIDTH, WIDTH)},
        "dtype": {matrix: weights[matrix].half()},
        "integer buffer": {"decoder.count": torch.tensor([8])},
        "version buffer": {"encoder.version": torch.Tensor([2])},
        "nan": {matrix: torch.full_like(weights[matrix], float("nan"))},
        "infinity": {matrix: torch.full_like(weights[matrix], float("inf"))},
    }
    return weights | changed[what]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "keys",
            r"differ in 4 of their keys: encoder\.layers\.0\.norm\.weight only in checkpoint1\.pt, .*x only in other",
        ),
        (
            "shape",
            r"weight encoder\.layers\.0\.fc1\.weight has shape \(32, 16\) in .*1\.pt and \(16, 16\) in .*other\.pt",
        ),
        ("dtype", r"weight encoder\.layers\.0\.fc1\.weight is torch\.float32 in .* and torch\.float16 in .*other\.pt"),
        ("integer buffer", r"buffer decoder\.count differs between .*1\.pt and .*other\.pt"),
        ("version buffer", r"buffer encoder\.version differs"),
        ("nan", r"other\.pt: weight encoder\.layers\.0\.fc1\.weight holds NaN or infinity"),
        ("infinity", r"other\.pt: weight encoder\.layers\.0\.fc1\.weight holds NaN or infinity"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path, three: list[Path], what: str, message: str) -> None:
    other = save(tmp_path / "other.pt", change(make_weights(6), what))
    with pytest.raises(CheckpointError, match=message):
        average_checkpoints([three[0], other])


def test_uninitialized_placeholder_of_old_fairseq_may_hold_anything(tmp_path: Path) -> None:
    key = "decoder.embed_positions._float_tensor"
    paths = [
        save(tmp_path / f"{value}.pt", make_weights(1) | {key: torch.tensor([value])}) for value in (float("nan"), 1e30)
    ]
    assert key in average_checkpoints(paths)["model"]
    assert checkpoint_facts(paths[0])["parameters"] == checkpoint_facts(paths[1])["parameters"]


def test_a_file_that_counts_twice_and_an_output_that_is_an_input_are_refused(three: list[Path]) -> None:
    link = three[0].with_name("link.pt")
    link.symlink_to(three[0])
    with pytest.raises(ConfigError, match="the same file"):
        average_checkpoints([*three, link])
    with pytest.raises(ConfigError, match=r"checkpoint1\.pt"):
        write_average(three, three[0])


def test_truncated_input_leaves_the_old_output_alone(tmp_path: Path, three: list[Path]) -> None:
    output = tmp_path / "average.pt"
    write_average(three, output)
    before = output.read_bytes()
    three[1].write_bytes(three[1].read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"checkpoint2\.pt"):
        write_average(three, output)
    assert output.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp*"))


NAMES = (
    "checkpoint1.pt checkpoint2.pt checkpoint10.pt checkpoint_best.pt checkpoint_last.pt checkpoint_crash.pt"
    " checkpoint11.pt.tmp-7 checkpoint.best_bleu_30.pt checkpoint_1_900.pt checkpoint_2_1000.pt checkpoint_2_50.pt.tmp"
)


def test_newest_files_are_chosen_by_number(tmp_path: Path) -> None:
    for name in NAMES.split():
        (tmp_path / name).touch()

    def names(last: int, by: str) -> list[str]:
        return [path.name for path in select_checkpoints(tmp_path, last, by)]

    assert names(2, "epoch") == ["checkpoint2.pt", "checkpoint10.pt"]
    assert names(2, "update") == ["checkpoint_1_900.pt", "checkpoint_2_1000.pt"]
    with pytest.raises(CheckpointError, match=r"--last 4: .* has only 3 files named checkpointE\.pt"):
        names(4, "epoch")
    with pytest.raises(ConfigError, match="--last must be at least 1, got 0"):
        names(0, "epoch")
    with pytest.raises(CheckpointError, match="no such directory"):
        select_checkpoints(tmp_path / "none", 1)


def test_the_end_of_a_training_counts_where_it_has_more_updates(tmp_path: Path, three: list[Path]) -> None:
    final = tmp_path / "checkpoint_last.pt"

    def names(last: int) -> list[str]:
        return [path.name for path in select_checkpoints(tmp_path, last, include_last=True)]

    final.write_bytes(three[2].read_bytes())  # as fairseq writes it at the end of an epoch
    assert names(2) == ["checkpoint2.pt", "checkpoint3.pt"]
    three[2].rename(final)
    assert names(2) == ["checkpoint2.pt", "checkpoint_last.pt"]
    assert names(3) == ["checkpoint1.pt", "checkpoint2.pt", "checkpoint_last.pt"]
    with pytest.raises(CheckpointError, match="--last 4"):
        names(4)


def test_the_verb(tmp_path: Path, three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out" / "average.pt"
    assert main(["average", "--checkpoint", str(tmp_path), "--last", "2", "--output", str(output)]) == 0
    assert "checkpoint2.pt (200 updates), checkpoint3.pt (300 updates)" in capsys.readouterr().err
    expected = average_checkpoints(three[1:])["model"]
    assert all(torch.equal(load(output)["model"][key], value) for key, value in expected.items())
    assert main(["average", "--checkpoint", str(tmp_path), "--output", str(output)]) == 1
    assert main(["average", "--checkpoint", *map(str, three), "--last", "2", "--output", str(output)]) == 1
    assert main(["average", "--checkpoint", str(tmp_path / "none.pt"), "--output", str(output)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("fairseq-compress average: error: ") for line in errors)
    assert verb.HELP
