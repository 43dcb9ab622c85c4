"""fairseq-train with the plugin, killed at 20 moments: the end is that of a training which nobody disturbed."""

import os
import subprocess
import sys

import torch

from tests.conftest import ROOT, TINY, run_command

# Forks after the imports, so that the kills hit the training. A kill comes after a random number of checkpoints, at
# once (in the middle of writing and copying them) or a little later (in the middle of an update).
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch._dynamo  # which every optimizer imports
import fairseq.tasks.translation
import fairseq_compress
from fairseq_cli.train import cli_main
fairseq_compress.register()

folder = Path(sys.argv[1])
sys.argv = ["fairseq-train", *sys.argv[2:], "--save-dir", str(folder)]

def start():
    pid = os.fork()
    if pid == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        cli_main()
        os._exit(0)
    return pid

def written():  # names and times of what is there, also of what is being written
    found = set()
    for path in folder.glob("*"):
        try:
            found.add((path.name, path.stat().st_mtime_ns, path.stat().st_size))
        except FileNotFoundError:
            pass
    return found

draw, kills, resumed = random.Random(5), 0, 0
while True:
    resumed += (folder / "checkpoint_last.pt").exists()
    pid, seen, changes, ended = start(), written(), 0, 0
    wanted = draw.randrange(3, 14) if kills < 20 else 10**9
    while changes < wanted and not ended:
        ended, status = os.waitpid(pid, os.WNOHANG)
        now = written()
        changes, seen = changes + (now != seen), now
        time.sleep(0.0002)
    if not ended:
        time.sleep(draw.choice([0, 0, 0.001, 0.01, 0.05]))
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    kills += os.WIFSIGNALED(status)
    if not os.WIFSIGNALED(status):
        break
print(kills, resumed, os.waitstatus_to_exitcode(status))
"""


def test_killed_at_20_random_moments(train_arguments, data_bin, teacher, tmp_path):
    """Word-level distillation from a cache, with dropout."""
    cache = ["--checkpoint", teacher, "--data", data_bin, "--output", tmp_path / "cache"]
    run_command("fairseq-compress", "cache-teacher", *cache)
    base = [argument for argument in train_arguments if argument != "--no-last-checkpoints"]
    base[base.index("--max-tokens") + 1] = "240"
    arguments = [
        *base, *TINY, "--arch", "transformer_small", "--dropout", 0.2, "--criterion", "word_level_kd",
        "--teacher-cache", tmp_path / "cache",
        "--max-update", 60, "--save-interval-updates", 1, "--keep-interval-updates", 2, "--no-epoch-checkpoints",
    ]  # fmt: skip
    run_command("fairseq-train", *arguments, "--save-dir", tmp_path / "whole")
    result = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path / "killed"), *map(str, arguments)], stdout=subprocess.PIPE,
        text=True, timeout=400, check=True, cwd=ROOT, env=os.environ | {"WANDB_MODE": "disabled"},
    )  # fmt: skip
    kills, resumed, status = map(int, result.stdout.split()[-3:])
    assert (kills, status) == (20, 0)
    assert resumed >= 15
    whole, killed = (
        torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=False) for name in ("whole", "killed")
    )
    assert killed["optimizer_history"][-1]["num_updates"] == 60
    assert whole["model"].keys() == killed["model"].keys()
    for key, weight in whole["model"].items():
        assert torch.equal(weight, killed["model"][key]), key
    first, second = (state["last_optimizer_state"]["state"] for state in (whole, killed))
    for index, moments in first.items():
        assert all(torch.equal(moments[name], second[index][name]) for name in ("exp_avg", "exp_avg_sq"))
