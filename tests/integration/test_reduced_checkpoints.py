"""Checkpoints as others leave them: reduced to weights and configuration, or with values of numpy in them."""

import shutil

import numpy as np
import pytest
import torch

from fairseq_compress.cli.main import main
from tests.conftest import PLUGIN, TINY, run_command

KEYS = {"released": ("model", "cfg"), "old": ("model", "args")}


@pytest.fixture(scope="module", params=["released", "old", "numpy"])
def checkpoint(request, teacher, data_bin, tmp_path_factory):
    """With its dictionaries beside it, as published models have them."""
    folder = tmp_path_factory.mktemp(request.param)
    state = torch.load(teacher, weights_only=False)
    if request.param == "numpy":
        meter = {"val": np.float64(12.5), "sum": np.array([3, 1, 4]), "count": np.int64(2), "round": 2}
        state["extra_state"] |= {"best": np.float64(12.5), "metrics": {"valid": [(10, "bleu", "AverageMeter", meter)]}}
    else:
        cfg = state["cfg"]
        state["args"] = cfg["model"] if request.param == "old" else None
        state = {key: state[key] for key in KEYS[request.param]}
    torch.save(state, folder / "c.pt")
    for name in ("dict.en.txt", "dict.cs.txt"):
        shutil.copy(data_bin / name, folder)
    return folder / "c.pt"


def pieces(folder):
    (folder / "source").write_text("a1 a2 a3\na4 a5\n")
    return folder / "source"


@pytest.mark.parametrize(
    "arguments",
    [
        ["describe", "--checkpoint", "C"],
        ["average", "--checkpoint", "C", "COPY", "--output", "OUT.pt"],
        ["materialize", "--checkpoint", "C", "--output", "OUT.pt"],
        ["quantize", "--checkpoint", "C", "--output", "OUT.safetensors"],
        ["factorize", "--checkpoint", "C", "--rank", "4", "--output", "OUT.pt"],
        ["nbest", "--checkpoint", "C", "--source", "SOURCE", "--beam", "2", "--max-len-b", "5", "--output", "OUT"],
        ["cache-teacher", "--checkpoint", "C", "--data", "DATA", "--splits", "valid", "--output", "OUT"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_verb_takes_them(arguments, checkpoint, data_bin, tmp_path, capfd):
    shutil.copy(checkpoint, tmp_path / "copy.pt")
    names = {
        "C": checkpoint, "COPY": tmp_path / "copy.pt", "SOURCE": pieces(tmp_path), "DATA": data_bin,
        **{name: tmp_path / name for name in ("OUT", "OUT.pt", "OUT.safetensors")},
    }  # fmt: skip
    assert main([str(names.get(argument, argument)) for argument in arguments]) == 0, capfd.readouterr().err
    if (tmp_path / "OUT.pt").is_file() and arguments[0] == "average":
        weights = torch.load(tmp_path / "OUT.pt", weights_only=False)["model"]
        assert all(torch.equal(torch.load(checkpoint, weights_only=False)["model"][k], w) for k, w in weights.items())


def test_fairseq_generates_with_them(checkpoint, data_bin, teacher):
    logs = [
        run_command(
            "fairseq-generate", data_bin, "--user-dir", PLUGIN, "--task", "compressed_translation", "-s", "en", "-t",
            "cs", "--cpu", "--gen-subset", "test2", "--beam", 2, "--max-len-b", 8, "--path", path,
        ).stdout
        for path in (checkpoint, teacher)
    ]  # fmt: skip
    found, expected = ([line for line in log.splitlines() if line.startswith("H-")] for log in logs)
    assert found == expected
    assert len(found) == 9


@pytest.mark.parametrize(
    "options",
    [
        ["--finetune-from-model", "C", "--criterion", "word_level_kd", "--teacher-path", "C"],
        ["--init-from-teacher", "C", "--criterion", "hidden_state_kd", "--teacher-path", "C", "--feature-weight", "1"],
        ["--restore-file", "C"],
    ],
    ids=["finetune and teacher", "start and teacher", "restore"],
)
def test_trainings_take_them(options, checkpoint, train_arguments, tmp_path):
    options = [str(checkpoint) if option == "C" else option for option in options]
    run_command("fairseq-train", *train_arguments, "--arch", "transformer_small", *TINY, "--save-dir", tmp_path,
                "--max-update", 4, "--save-interval-updates", 4, *options)  # fmt: skip
    (saved,) = tmp_path.glob("checkpoint_*_4.pt")
    assert torch.load(saved, weights_only=False)["optimizer_history"][-1]["num_updates"] == 4
