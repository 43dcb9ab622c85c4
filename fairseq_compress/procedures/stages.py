"""Quantization group after group, with training between: iterative product quantization, iPQ (arXiv:2004.07320).

In stage s the weights of the rules of s are quantized as they have become by then; the training that follows moves the
centroids of all stages so far, with fixed assignments, and the weights that are not quantized yet. Each training is
``fairseq-train``, so criterion, optimizer, teacher, processes and devices are what its options say.

Of each stage there is a folder: ``start.pt``, quantized and not yet trained, the checkpoints of fairseq, and
``model.pt``, its result. What was killed goes on where it stopped.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fairseq_compress.checkpoint.compress import check_plan
from fairseq_compress.checkpoint.load import load_state
from fairseq_compress.checkpoint.state import num_updates, without_training_state, write_state
from fairseq_compress.corpus.files import atomic_write, check_distinct, file_sha256
from fairseq_compress.corpus.unit_log import take_lock
from fairseq_compress.errors import ConfigError, TrainingError
from fairseq_compress.plans.reading import plan_text
from fairseq_compress.plans.rules import Plan
from fairseq_compress.procedures.calibration import Calibration
from fairseq_compress.procedures.post_training import quantize

PLUGIN = Path(__file__).resolve().parents[1]
TRAIN = (sys.executable, "-m", "fairseq_cli.train")
# What a stage sets itself, and what would leave nothing to go on from.
REFUSED = (
    *("--finetune-from-model", "--compression-plan", "--save-dir"),
    *("--restore-file", "--no-save", "--no-last-checkpoints"),
)
ADDED: dict[str, str | Path] = {"--user-dir": str(PLUGIN), "--task": "compressed_translation"}


def quantize_in_stages(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    plan: Plan,
    folder: str | os.PathLike[str],
    arguments: Sequence[str],
    command: Sequence[str] = TRAIN,
    calibration: Calibration | None = None,
) -> None:
    """Quantize and train stage by stage, and write the result of the last as a checkpoint of fairseq.

    Args:
        path: the trained model to start from.
        folder: of the stages; the same call goes on in it.
        arguments: of ``fairseq-train``, its data first, for the training after each stage.
        command: what is called with them.
        calibration: of the ranges of activations, in the stage where they begin; else training finds them from nothing.

    Raises:
        ConfigError: an argument is one that a stage sets itself; or the folder is that of a call with other arguments,
            or another process works in it.
        TrainingError: a training failed.
    """
    if refused := [word for word in arguments if word.split("=")[0] in REFUSED]:
        raise ConfigError(f"fairseq-train: {refused[0]} is not for the stages of a quantization, which have their own")
    check_distinct([path], [output])
    check_plan(path, plan)
    top = Path(folder)
    top.mkdir(parents=True, exist_ok=True)
    training = [*command, *arguments]
    with open(top / ".lock", "wb") as lock:
        if not take_lock(lock):
            raise ConfigError(f"--stages-dir: another process works in {top}")
        model = Path(path)
        for stage in plan.stages():
            model = _Stage(top / f"stage-{stage}", model, plan.until(stage), calibration).run(training, lock.fileno())
    with open(model, "rb") as result, atomic_write(output, "wb") as file:
        shutil.copyfileobj(result, file)


class _Stage:
    """One stage in its folder."""

    def __init__(self, folder: Path, origin: Path, plan: Plan, calibration: Calibration | None) -> None:
        self.folder, self.origin, self.plan, self.calibration = folder, origin, plan, calibration

    def run(self, training: list[str], lock: int) -> Path:
        """Do what is not done yet, and return the path of the result.

        Args:
            training: the command without what a stage adds.
            lock: a file that the training keeps open, so that nobody starts another one should this process be killed.
        """
        result = self.folder / "model.pt"
        self._claim(training)
        if result.exists():
            return result
        start, plan = self.folder / "start.pt", self.folder / "plan.yaml"
        if not start.exists():
            quantizes_new = any(rule.stage == self.plan.stages()[-1] for rule in self.plan.activations)
            quantize(self.origin, start, self.plan, self.calibration if quantizes_new else None)
        with atomic_write(plan) as file:
            file.write(plan_text(self.plan) + "\n")
        if not self._is_trained(training):
            added = {name: value for name, value in ADDED.items() if name not in training}
            own = {"--finetune-from-model": start, "--compression-plan": plan, "--save-dir": self.folder}
            words = [str(word) for pair in (added | own).items() for word in pair]
            ended = subprocess.run([*training, *words], pass_fds=(lock,), check=False).returncode
            if ended != 0:
                raise TrainingError(f"{self.folder}: the training ended with status {ended}; the same command goes on")
        write_state(without_training_state(load_state(self._best())), result)
        return result

    def _claim(self, training: list[str]) -> None:
        """Note what this folder is for, or check that it is for that."""
        own = {
            "plan": json.loads(plan_text(self.plan)),
            "training": training,
            "model": file_sha256(self.origin),
            "calibration": None if self.calibration is None else vars(self.calibration),
        }
        note = self.folder / "stage.json"
        if not note.exists():
            with atomic_write(note) as file:
                json.dump(own, file, indent=2)
            return
        noted = json.loads(note.read_text())
        if changed := [name for name, value in json.loads(json.dumps(own)).items() if noted.get(name) != value]:
            raise ConfigError(
                f"--stages-dir: {self.folder} was begun with another {' and another '.join(changed)}; "
                "name another folder, or remove this one"
            )

    def _is_trained(self, training: list[str]) -> bool:
        """Whether the last update was made, after which fairseq would make one more."""
        last = self.folder / "checkpoint_last.pt"
        words = [part for word in training for part in word.split("=", 1)]
        if "--max-update" not in words or not last.exists():
            return False
        return num_updates(load_state(last)) >= int(
            words[len(words) - words[::-1].index("--max-update")]
        )  # of several the last

    def _best(self) -> Path:
        """The best checkpoint by validation; without validation the last."""
        best = self.folder / "checkpoint_best.pt"
        return best if best.exists() else self.folder / "checkpoint_last.pt"
