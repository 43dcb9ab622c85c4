"""A pipeline of fake commands: the scripts are real, what they call records its arguments and makes tiny files."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAKES = Path(__file__).with_name("fake_commands.py")
COMMANDS = ("fairseq-train", "fairseq-generate", "fairseq-preprocess", "fairseq-compress", "torchrun")

SETTINGS = """
SOURCE_LANG=en TARGET_LANG=cs VOCAB_SIZE=99
TRAIN_PREFIXES=("$RAW_DIR/train") VALID_PREFIX=$RAW_DIR/valid TEST_PREFIX=$RAW_DIR/test
TEACHER_MAX_EPOCH=3 TEACHER_AVERAGE_LAST=2 KD_BEAM=3 AUTOCAST=bfloat16
STUDENT_MAX_UPDATE=30 STUDENT_SAVE_INTERVAL=10 STUDENT_AVERAGE_LAST=1
STUDENTS=(
    "one transformer_student_tiny gold label_smoothed_cross_entropy"
    "two transformer_student_base both word_level_kd --encoder-layers 2"
)
"""

EVERY_KIND = """
STUDENTS=(
    "live transformer_student_tiny both word_level_kd"
    "cached transformer_student_tiny both word_level_kd@8"
    "smaller transformer_student_tiny both word_level_kd@8 --encoder-layers 1"
    "wider transformer_student_tiny gold word_level_kd@32"
    "one-best transformer_student_tiny kd fused_label_smoothed_cross_entropy"
    "k-best transformer_student_tiny k-best sequence_level_kd"
    "near transformer_student_tiny interpolated label_smoothed_cross_entropy"
)
"""
NOT_OF_THE_TESTS = (
    "WANDB_PROJECT", "WANDB_MODE", "WANDB_API_KEY", "NETRC", "NODES", "LAUNCHER", "RENDEZVOUS", "SRUN_ARGUMENTS",
    "JOBS", "ADOPT", "KD_PROCESSES", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "CUDA_VISIBLE_DEVICES",
    "FC_DEVICE", "FC_AUTOCAST", "FC_LOCK_HELD", "SEEDS", "LONG",
    *(name for name in os.environ if name.startswith("SLURM_")),
)  # fmt: skip


class Pipeline:
    """A work directory, a configuration and raw text of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.work = folder / "work"
        self.raw = folder / "raw"
        self.config = folder / "try-en-cs.env"
        self.record = folder / "record"
        self.pid_file = folder / "pid"
        self.raw.mkdir(parents=True)
        self.config.write_text(SETTINGS)
        for part, lines in (("train", 7), ("valid", 3), ("test", 5)):
            for lang in ("en", "cs"):
                (self.raw / f"{part}.{lang}").write_text("".join(f"{lang} {part} {i}\n" for i in range(lines)))
        binaries = folder / "bin"
        binaries.mkdir()
        for name in COMMANDS:
            (binaries / name).write_text(f"#!{sys.executable} -SE\n" + FAKES.read_text(encoding="utf-8"))
            (binaries / name).chmod(0o755)
        (binaries / "python").symlink_to(sys.executable)
        self.environment = os.environ | {
            "WORK_DIR": str(self.work), "RAW_DIR": str(self.raw), "FC_BIN": str(binaries), "DEVICE": "cpu",
            "HARDWARE": "a fake", "HOME": str(folder),
            "FAKE_RECORD": str(self.record), "FAKE_PID": str(self.pid_file), "FC_LOCK_WAIT": "10",
        }  # fmt: skip
        for name in NOT_OF_THE_TESTS:
            self.environment.pop(name, None)
        self.environment["JOBS"] = "1"

    def command(self, *arguments: str, script: str = "run_all.sh") -> list[str]:
        return ["bash", str(ROOT / "scripts" / script), str(self.config), *arguments]

    def run(
        self, *arguments: str, script: str = "run_all.sh", status: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script on the configuration, from some other folder, and check its exit status."""
        result = subprocess.run(
            self.command(*arguments, script=script), cwd=self.folder, env=self.environment | environment,
            text=True, capture_output=True, timeout=400, check=False,
        )  # fmt: skip
        assert result.returncode == status, result.stdout + result.stderr
        return result

    def dry_run(self, config: str | None = None, **environment: str) -> list[list[str]]:
        """The commands that a dry run prints, for this configuration or one of the repository."""
        if config is not None:
            self.config = ROOT / "configs" / config
        output = self.run("--dry-run", **environment).stdout
        commands = [line for line in output.splitlines() if not line.startswith(("#", "==", "skip "))]
        bin_folder = self.environment["FC_BIN"] + "/"
        return [[word.replace(bin_folder, "") for word in shlex.split(line)] for line in commands]

    def append(self, text: str) -> None:
        """Add lines to the configuration."""
        with self.config.open("a") as stream:
            stream.write(text)

    def set(self, **settings: str) -> None:
        """Change settings of the configuration."""
        self.append("".join(f"{name}={value}\n" for name, value in settings.items()))

    def recorded(self) -> list[list[str]]:
        """The commands that ran since the last call, paths of this test replaced by names."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        self.record.unlink(missing_ok=True)
        names = {str(self.work): "WORK", str(self.raw): "RAW", str(ROOT): "ROOT", ".tmp": ""}
        for path, name in names.items():
            lines = [line.replace(path, name) for line in lines]
        return [json.loads(line) for line in lines]

    def run_log(self, step: str) -> str:
        """All that the runs of a step printed."""
        return (self.work / f"logs/{step}.log").read_text()

    def results(self) -> dict[str, str]:
        """Everything in the work directory but logs and the lock, as text."""
        files = (path for path in self.work.rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.work)): path.read_bytes().decode("latin-1")
            for path in files
            if path.parent.name != "logs" and path.name != ".lock"
        }


def value(command: list[str], option: str) -> str:
    """The value after an option of a recorded command (the last one counts, as for fairseq)."""
    return command[len(command) - command[::-1].index(option)]


def name_of(command: list[str]) -> str:
    """What a command does: the verb of fairseq-compress with its step, or its name."""
    words = 3 if command[1:2] == ["kd-data"] or command[1:3] == ["time", "--"] else 2
    return " ".join(command[1:words]) if command[0] == "fairseq-compress" else command[0]


def find(commands: list[list[str]], name: str, option: str = "", content: str = "") -> list[list[str]]:
    """The commands of that name whose option has that value."""
    return [
        command
        for command in commands
        if name_of(command) == name and (not option or value(command, option) == content)
    ]
