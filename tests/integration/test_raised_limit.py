"""A training whose limit was raised goes on from its last checkpoint, to the weights of one that had it at once."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import PLUGIN, TINY, run_command


def train(data_bin: Path, folder: Path, *options: object) -> None:
    run_command(
        "fairseq-train", data_bin, "--user-dir", PLUGIN, "--task", "compressed_translation", "-s", "en", "-t", "cs",
        "--cpu", "--arch", "transformer_small", *TINY, "--dropout", "0.2", "--optimizer", "adam", "--lr", "1e-2",
        "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "2", "--max-tokens", "120", "--seed", "3",
        "--no-progress-bar", "--num-workers", "0", "--save-dir", folder, *options,
    )  # fmt: skip


def average(folder: Path, *options: object) -> list[torch.Tensor]:
    output = folder.with_suffix(".pt")
    run_command("fairseq-compress", "average", "--checkpoint", folder, *options, "--output", output)
    return list(torch.load(output, weights_only=False)["model"].values())


@pytest.mark.parametrize(
    ("saves", "by", "low", "high"),
    [
        # The first end lies between two saves, the second one too.
        (
            ("--save-interval-updates", 2, "--keep-interval-updates", 2, "--no-epoch-checkpoints"),
            "update",
            ("--max-update", 3),
            ("--max-update", 7),
        ),
        (("--keep-last-epochs", 2), "epoch", ("--max-epoch", 1), ("--max-epoch", 3)),
    ],
)
def test_a_raised_limit_gives_the_weights_of_one_training(data_bin, tmp_path, saves, by, low, high) -> None:
    raised, direct = tmp_path / "raised", tmp_path / "direct"
    train(data_bin, raised, *saves, *low)
    last = ("--last", 1, "--by", by, "--include-last")
    first = average(raised, *last)
    copied = tmp_path / "copied"
    shutil.copytree(raised, copied)
    train(data_bin, copied, *saves, *high)
    train(data_bin, direct, *saves, *high)
    for options in (last, ("--last", 2, "--by", by, "--include-last")):
        pairs = list(zip(average(copied, *options), average(direct, *options), strict=True))
        assert pairs
        assert all(torch.equal(one, other) for one, other in pairs)
    assert not all(torch.equal(one, other) for one, other in zip(first, average(direct, *last), strict=True))


def test_the_end_of_a_training_is_in_its_average(data_bin, tmp_path) -> None:
    folder = tmp_path / "checkpoints"
    train(data_bin, folder, "--save-interval-updates", 2, "--no-epoch-checkpoints", "--max-update", 5)
    result = run_command(
        "fairseq-compress", "average", "--checkpoint", folder, "--last", 2, "--by", "update", "--include-last",
        "--output", tmp_path / "mean.pt",
    )  # fmt: skip
    assert "checkpoint_1_4.pt (4 updates), checkpoint_last.pt (5 updates)" in result.stdout
    train(data_bin, folder, "--save-interval-updates", 2, "--no-epoch-checkpoints", "--max-update", 6)
    result = run_command(
        "fairseq-compress", "average", "--checkpoint", folder, "--last", 2, "--by", "update", "--include-last",
        "--output", tmp_path / "mean.pt",
    )  # fmt: skip
    assert "checkpoint_1_4.pt (4 updates), checkpoint_1_6.pt (6 updates)" in result.stdout  # the last one is the same
