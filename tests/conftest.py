"""Fixtures for all tests: a small binarized corpus, and the real commands of fairseq with the plugin loaded."""

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers.command_server import MODULES, CommandServer

# As the commands run: what tests compute here and what commands compute must have the same last digits. Both are read
# when torch computes for the first time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "fairseq_compress"
BIN = Path(sys.executable).parent
TORCHRUN = [
    *("torchrun", "--nproc_per_node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--no-python"),
    *("bash", ROOT / "scripts" / "lib" / "train_process.sh"),
]
TWO_PROCESSES = ["--distributed-world-size", "2", "--distributed-no-spawn", "--distributed-backend", "gloo"]
UNDER_TORCHRUN = [*TWO_PROCESSES, "--distributed-init-method", "env://"]
VARIABLES = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
TINY = [
    *("--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "24", "--encoder-attention-heads", "2"),
    *("--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "24", "--decoder-attention-heads", "2"),
    *("--encoder-layers", "2", "--decoder-layers", "1"),
]


def run_command(
    name: str, *arguments: object, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the virtual environment; stdout and stderr come back together."""
    command = [str(BIN / name), *map(str, arguments)]
    if name in MODULES and not environment:
        result = run_forked(name, [command])
    else:
        result = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
            env=os.environ | VARIABLES | environment,
        )
    if check and result.returncode != 0:
        raise AssertionError(f"{name} ended with status {result.returncode}:\n{result.stdout}")
    return result


SERVERS: dict[tuple[str, ...], CommandServer] = {}


def run_forked(name: str, commands: list[list[str]]) -> subprocess.CompletedProcess[str]:
    """Commands in parallel, forks of a process that imported their libraries: :mod:`tests.helpers.command_server`."""
    modules = MODULES[name]
    if modules not in SERVERS or SERVERS[modules].process.poll() is not None:
        SERVERS[modules] = CommandServer(modules)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        status = SERVERS[modules].run(commands, os.environ | VARIABLES, output, timeout=300)
        return subprocess.CompletedProcess(commands[0], status, output.read_text())


def train_in_two_processes(*arguments: object) -> None:
    """fairseq-train with two gloo processes, told what a launcher tells them."""
    with tempfile.TemporaryDirectory() as folder:
        options = [*TWO_PROCESSES, "--distributed-init-method", f"file://{folder}/meeting", "--distributed-rank"]
        train = [str(BIN / "fairseq-train"), *map(str, arguments), *options]
        result = run_forked("fairseq-train", [[*train, rank] for rank in ("0", "1")])
    assert result.returncode == 0, result.stdout


def train_under_torchrun(*arguments: object) -> None:
    """The same with torchrun for a launcher, as the pipeline calls it."""
    run_command(TORCHRUN[0], *TORCHRUN[1:], BIN / "fairseq-train", *arguments, *UNDER_TORCHRUN)


def write_pair(prefix: Path, lines: int, seed: int, first: str = "a") -> None:
    """Random words over a small alphabet; the 'Czech' side is the English one reversed, with other words."""
    draw = random.Random(seed)
    with open(f"{prefix}.en", "w") as source, open(f"{prefix}.cs", "w") as target:
        for _ in range(lines):
            words = [draw.randrange(20) for _ in range(draw.randint(2, 9))]
            source.write(" ".join(f"{first}{w}" for w in words) + "\n")
            target.write(" ".join(f"z{w}" for w in reversed(words)) + "\n")


def binarize(folder: Path, prefixes: dict[str, str], *arguments: object) -> Path:
    """fairseq-preprocess with a joined dictionary; ``prefixes`` maps trainpref, validpref, testpref to prefixes."""
    options = [item for name, prefix in prefixes.items() for item in (f"--{name}", prefix)]
    run_command("fairseq-preprocess", "-s", "en", "-t", "cs", *options, "--joined-dictionary", "--destdir", folder,
                *arguments)  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def data_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binarized corpus: 120 train, 11 valid, and test parts of 1, 5, 9 and 1,071 lines (test, test1, ...)."""
    text = tmp_path_factory.mktemp("text")
    parts = {"train": 120, "valid": 11, "test": 1, "test1": 5, "test2": 9, "test3": 1071}
    for seed, (name, lines) in enumerate(parts.items()):
        write_pair(text / name, lines, seed)
    tests = ",".join(str(text / name) for name in parts if name.startswith("test"))
    prefixes = {"trainpref": str(text / "train"), "validpref": str(text / "valid"), "testpref": tests}
    return binarize(tmp_path_factory.mktemp("corpus") / "bin", prefixes)


@pytest.fixture(scope="session")
def train_arguments(data_bin: Path) -> list[str]:
    """What every training run of the tests shares: two updates on a CPU, no validation."""
    return [
        str(data_bin), "--user-dir", str(PLUGIN), "--task", "compressed_translation", "-s", "en", "-t", "cs", "--cpu",
        "--optimizer", "adam", "--lr", "1e-3", "--max-tokens", "120", "--max-update", "2", "--seed", "3",
        "--no-progress-bar", "--log-interval", "1", "--num-workers", "0", "--disable-validation",
        "--no-epoch-checkpoints", "--no-last-checkpoints", "--save-interval-updates", "2",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def teacher(train_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained (for two updates) teacher of the small corpus."""
    folder = tmp_path_factory.mktemp("teacher")
    run_command("fairseq-train", *train_arguments, "--arch", "transformer_small", *TINY, "--save-dir", folder)
    return folder / "checkpoint_1_2.pt"
