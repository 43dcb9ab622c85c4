"""What a student learns from, by options of fairseq-train: each runs, and a run that was stopped goes on bit by bit."""

import pytest
import torch

from tests.conftest import TINY, run_command

RUNS = {
    "queue, TIE-KD and dropout passes": [
        "--selective-kd", "queue", "--selective-kd-queue", 60, "--kd-iterations", 3, "--kd-ranking", 5,
        "--teacher-dropout-passes", 2, "--kd-divergence", "jsd", "--jsd-beta", 0.3,
    ],
    "half of the batches on policy": ["--on-policy-fraction", 0.5, "--kd-divergence", "reverse_kl", "--kd-alpha", 0.3],
}  # fmt: skip


def load(folder):
    return torch.load(folder / "checkpoint_last.pt", weights_only=False)


@pytest.fixture
def arguments(train_arguments, teacher):
    kept = [argument for argument in train_arguments if argument != "--no-last-checkpoints"]
    return [*kept, "--arch", "transformer_small", *TINY, "--criterion", "word_level_kd", "--teacher-path", teacher,
            "--dropout", 0.2, "--update-freq", 2]  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_stopped_and_resumed(name, arguments, tmp_path):
    logs = {}
    for folder, stops in (("whole", [6]), ("resumed", [3, 6])):
        for updates in stops:
            logs[folder] = run_command(
                "fairseq-train", *arguments, *RUNS[name], "--max-update", updates, "--save-interval-updates", 3,
                "--save-dir", tmp_path / folder,
            ).stdout  # fmt: skip
    whole, resumed = load(tmp_path / "whole"), load(tmp_path / "resumed")
    for key, weight in whole["model"].items():
        assert torch.equal(weight, resumed["model"][key]), key
    assert whole["criterion"] is None  # the teacher would be there
    queues = [state["task_state"].get("selective_kd_queue") for state in (whole, resumed)]
    if "queue" in name:
        assert len(queues[0]) == 60
        assert torch.equal(*queues)
    for log in logs.values():
        assert "kd_loss=" in log
        assert "nan" not in log


def test_another_training_does_not_take_the_queue_over(arguments, tmp_path):
    run_command("fairseq-train", *arguments, *RUNS["queue, TIE-KD and dropout passes"], "--save-dir", tmp_path / "a")
    options = ["--selective-kd", "queue", "--selective-kd-queue", 7, "--finetune-from-model",
               tmp_path / "a" / "checkpoint_last.pt", "--max-update", 1, "--save-interval-updates", 1]  # fmt: skip
    run_command("fairseq-train", *arguments, *options, "--save-dir", tmp_path / "b")
    assert len(load(tmp_path / "b")["task_state"]["selective_kd_queue"]) == 7


def test_the_queue_is_equal_on_every_process(tmp_path):
    """Values of three processes, of unequal numbers, arrive everywhere in the order of the ranks."""
    (tmp_path / "gather.py").write_text("""
import os

import fairseq
import torch
import torch.distributed as dist
from fairseq_compress.criterions.selective_kd import gathered

dist.init_process_group("gloo")
rank = dist.get_rank()
found = gathered(torch.arange(rank * 10.0, rank * 10.0 + 2 * rank))
assert found.tolist() == [10, 11, 20, 21, 22, 23], found
print("equal", flush=True)
""")
    log = run_command(
        "torchrun", "--nproc_per_node", 3, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0",
        tmp_path / "gather.py",
    ).stdout  # fmt: skip
    assert log.count("equal") == 3


def test_bad_options_end_the_training(arguments, tmp_path):
    result = run_command(
        "fairseq-train", *arguments, "--kd-iterations", 3, "--on-policy-fraction", 0.5, "--jsd-beta", 0.2,
        "--save-dir", tmp_path, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    last = result.stdout.strip().splitlines()[-1]
    assert "--jsd-beta: requires --kd-divergence jsd" in last
    assert "--kd-iterations: must be 1 with --on-policy-fraction" in last
