"""Training through hidden states, through logits and with fairseq's own criterion: the same losses and weights."""

import re

import pytest
import torch

from tests.conftest import TINY, run_command


def train(arguments, folder, *options):
    """Losses of all updates, the last validation, and the weights after them."""
    log = run_command(
        "fairseq-train", *arguments, "--arch", "transformer_small", *TINY, "--max-update", 4, "--label-smoothing", 0.1,
        "--save-dir", folder, *options,
    ).stdout  # fmt: skip
    updates = re.findall(r"[ |]loss[= ]([\d.]+), (?:gold_loss=[\d.]+, )?nll_loss=([\d.]+)", log)
    valid = re.findall(r"'valid' subset \| loss ([\d.]+) \|.*?nll_loss ([\d.]+)", log)
    assert len(updates) >= 4, log
    assert valid, log
    losses = [float(value) for pair in (*updates[:4], valid[-1]) for value in pair]
    return losses, torch.load(folder / "checkpoint_last.pt", weights_only=False)["model"]


@pytest.mark.parametrize("criterion", ["fused_label_smoothed_cross_entropy", "word_level_kd"])
def test_every_path_trains_alike(criterion, train_arguments, teacher, tmp_path):
    """With padding in the batches, as in all of them, and validation after the updates."""
    left_out = ("--disable-validation", "--no-last-checkpoints")
    arguments = [argument for argument in train_arguments if argument not in left_out]
    fused = ["--criterion", criterion]
    fused += ["--teacher-path", teacher, "--kd-temperature", 2] if criterion == "word_level_kd" else []
    paths = {"hidden": [*fused, "--loss-from", "hidden"], "logits": [*fused, "--loss-from", "logits"]}
    if criterion != "word_level_kd":
        paths["stock"] = ["--criterion", "label_smoothed_cross_entropy"]
    runs = {name: train(arguments, tmp_path / name, *options) for name, options in paths.items()}
    losses, weights = runs.pop("hidden")
    for name, (other_losses, other_weights) in runs.items():
        assert losses == pytest.approx(other_losses, abs=2e-3), name
        for key, weight in weights.items():
            torch.testing.assert_close(other_weights[key], weight, rtol=1e-3, atol=1e-4, msg=f"{name}: {key}")
