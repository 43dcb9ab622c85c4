"""A fixed random mask with int8 fake quantization on every weight: train, resume, average, pack, translate."""

import pytest
import torch

from fairseq_compress.checkpoint.load import load_upgraded
from tests.conftest import TINY, run_command
from tests.helpers.generation import generated

PLAN = "weights: [{modules: ['*'], method: mask, sparsity: 0.4}, {modules: ['*'], bits: 8}]"
BITS = ".weight_mask.bits"


def load(path):
    return torch.load(path, weights_only=False)["model"]


@pytest.fixture(scope="module")
def trainings(train_arguments, tmp_path_factory):
    """Eight updates from random weights at once, and with a stop after five; the plan's file is gone."""
    folder = tmp_path_factory.mktemp("masked")
    base = [argument for argument in train_arguments if argument != "--no-last-checkpoints"]
    base[base.index("--max-tokens") + 1] = "240"
    (folder / "plan.yaml").write_text(PLAN)
    options = [*TINY, "--arch", "transformer_small", "--dropout", "0.2", "--compression-plan", folder / "plan.yaml"]
    for name, stops in (("whole", [8]), ("resumed", [5, 8])):
        for updates in stops:
            run_command("fairseq-train", *base, *options, "--max-update", updates, "--save-dir", folder / name)
    (folder / "plan.yaml").unlink()
    return folder


def test_every_weight_is_masked_and_trained(trainings):
    first, last = load(trainings / "whole" / "checkpoint_1_2.pt"), load(trainings / "whole" / "checkpoint_last.pt")
    masks = [key for key in last if key.endswith(BITS)]
    matrices = [key for key, weight in last.items() if key.endswith(".weight") and weight.dim() == 2]
    assert [key.removesuffix("_mask.bits") for key in masks] == matrices
    for key in masks:
        assert torch.equal(first[key], last[key])
        weight = key.removesuffix("_mask.bits")
        bits = (last[key].unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
        kept = bits.flatten()[: last[weight].numel()].view(last[weight].shape).bool()
        changed = first[weight] != last[weight]
        assert kept.float().mean() == pytest.approx(0.6, abs=0.01)
        assert changed.any()
        assert not (changed & ~kept).any()


def test_resume_is_bit_equal(trainings):
    whole, resumed = (load(trainings / name / "checkpoint_last.pt") for name in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_average(trainings, data_bin, tmp_path):
    paths = sorted((trainings / "whole").glob("checkpoint_*_*.pt"))[-2:]
    run_command("fairseq-compress", "average", "--checkpoint", *paths, "--output", tmp_path / "mean.pt")
    mean, first, second = load(tmp_path / "mean.pt"), *map(load, paths)
    for key, value in mean.items():
        if key.endswith(BITS):
            assert torch.equal(value, first[key])
        else:
            torch.testing.assert_close(value, (first[key] + second[key]) / 2)
    assert generated(tmp_path / "mean.pt", data_bin)
    other = torch.load(paths[1], weights_only=False)
    other["model"]["encoder.layers.0.fc1" + BITS][0] ^= 1
    torch.save(other, tmp_path / "other.pt")
    result = run_command(
        "fairseq-compress", "average", "--checkpoint", paths[0], tmp_path / "other.pt", "--output", tmp_path / "no.pt",
        check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "encoder.layers.0.fc1.weight_mask.bits differs between" in result.stdout.splitlines()[-1]
    assert not (tmp_path / "no.pt").exists()


def test_pack_and_translate(trainings, data_bin, tmp_path):
    """Tokens and scores of the packed form are those of the checkpoint; the plain model has the same weights."""
    checkpoint, packed = trainings / "whole" / "checkpoint_last.pt", tmp_path / "packed.safetensors"
    log = run_command("fairseq-compress", "quantize", "--checkpoint", checkpoint, "--output", packed).stdout
    assert "masked, linear: bits=8, granularity=row" in log
    expected = generated(checkpoint, data_bin)
    assert generated(packed, data_bin) == expected
    run_command("fairseq-compress", "materialize", "--checkpoint", checkpoint, "--output", tmp_path / "plain.pt")
    of_plain = generated(tmp_path / "plain.pt", data_bin)  # the scores have other last digits: fairseq's attention
    assert [line.split("\t")[2] for line in of_plain[::2]] == [line.split("\t")[2] for line in expected[::2]]
    plain, unpacked = load(tmp_path / "plain.pt"), load_upgraded(packed)[0]["model"]
    assert all(torch.equal(value, unpacked[key]) for key, value in plain.items())
    zeros = [(plain[key.removesuffix("_mask.bits")] == 0).float().mean() for key in load(checkpoint) if BITS in key]
    assert all(0.39 < share < 0.5 for share in zeros)
    described = run_command("fairseq-compress", "describe", "--checkpoint", checkpoint).stdout
    assert described.splitlines()[-1].split()[0].replace(",", "") == str(packed.stat().st_size)
