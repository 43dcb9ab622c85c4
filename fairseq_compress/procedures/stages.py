"""Iterative product quantization, iPQ (arXiv:2004.07320): quantization in stages, each followed by training.

After stage s, ``fairseq-train`` trains the centroids of stages 1 to s, with fixed assignments, and the other weights.
The folder of a stage has ``start.pt`` (quantized, not trained), the checkpoints of fairseq, ``errors.log`` (standard
error of the training) and ``model.pt`` (the result). A killed run resumes where it stopped.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairseq_compress.checkpoint.compress import check_plan
from fairseq_compress.checkpoint.load import dictionaries_of, load_state, load_upgraded
from fairseq_compress.checkpoint.state import num_updates, without_training_state, write_state
from fairseq_compress.errors import ConfigError, TrainingError
from fairseq_compress.procedures.post_training import Calibration, quantize
from fairseq_compress.procedures.training_options import (
    TASK,
    check_dictionaries,
    check_training,
    checkpoint_options,
    last_value,
)
from fairseq_compress.procedures.training_run import run_training
from fairseq_compress.system import take_lock
from fairseq_compress.weights.reading import plan_text
from fairseq_compress.weights.rules import Plan
from fairseq_compress.work.files import PathLike, atomic_write, check_distinct, file_sha256

PLUGIN = Path(__file__).resolve().parents[1]
TRAIN = (sys.executable, "-m", "fairseq_cli.train")
# Set by a stage, or in the way of resuming.
REFUSED = (
    *("--finetune-from-model", "--compression-plan", "--save-dir"),
    *("--restore-file", "--no-save", "--no-last-checkpoints"),
)
ADDED: dict[str, str | Path] = {"--user-dir": str(PLUGIN), "--task": TASK}


def quantize_in_stages(
    path: PathLike, output: PathLike, plan: Plan, folder: PathLike, arguments: Sequence[str],
    command: Sequence[str] = TRAIN, calibration: Calibration | None = None,
) -> None:  # fmt: skip
    """Quantize and train stage by stage, and write the result of the last as a checkpoint of fairseq.

    Args:
        path: the trained model to start from.
        folder: of the stages; the same call resumes in it.
        arguments: of ``fairseq-train``, data first. Architecture and languages default to those of the checkpoint.
        command: in place of ``fairseq-train``.
        calibration: of the ranges of activations, in their stage; without it they are learned.
    """
    if refused := [word for word in arguments if word.split("=")[0] in REFUSED]:
        raise ConfigError(f"fairseq-train: {refused[0]} is not for the stages of a quantization, which have their own")
    check_training(arguments)
    check_distinct([path], [output])
    check_plan(path, plan)
    top = Path(folder)
    top.mkdir(parents=True, exist_ok=True)
    training = Training(tuple(command), tuple(arguments))
    with open(top / ".lock", "wb") as lock:
        if not take_lock(lock):
            raise ConfigError(f"--stages-dir: another process works in {top}")
        model, numbers = Path(path), plan.stages()
        for place, number in enumerate(numbers, 1):
            title = f"stage {place} of {len(numbers)}"
            stage = _Stage(title, top / f"stage-{number}", model, plan.until(number), calibration)
            model = stage.run(training, lock.fileno())
    with open(model, "rb") as result, atomic_write(output, "wb") as file:
        shutil.copyfileobj(result, file)


@dataclass(frozen=True)
class Training:
    """The command of the training after each stage, and the user's arguments."""

    command: tuple[str, ...]
    arguments: tuple[str, ...]

    def words(self, start: Path, own: Mapping[str, str | Path]) -> list[str]:
        """The command that fine-tunes a checkpoint, with the options ``own`` of a stage."""
        state, cfg = load_upgraded(start)
        added = {name: value for name, value in ADDED.items() if last_value(self.arguments, name) is None}
        if "--task" in added and not self.arguments[0].startswith("-"):
            entries = [len(dictionary) for dictionary in dictionaries_of(state["model"])]
            check_dictionaries(self.arguments[0], cfg, self.arguments, entries)
        options = [str(word) for pair in (added | dict(own)).items() for word in pair]
        return [*self.command, *checkpoint_options(cfg, self.arguments), *self.arguments, *options]


class _Stage:
    """One stage in its folder."""

    def __init__(self, title: str, folder: Path, origin: Path, plan: Plan, calibration: Calibration | None) -> None:
        self.title, self.folder, self.origin, self.plan, self.calibration = title, folder, origin, plan, calibration

    def run(self, training: Training, lock: int) -> Path:
        """Finish the stage and return the path of the result; ``lock``: see :func:`run_training`."""
        result = self.folder / "model.pt"
        self._claim(training)
        if result.exists():
            self._say("done already")
            return result
        start, plan = self.folder / "start.pt", self.folder / "plan.yaml"
        if not start.exists():
            self._say(f"quantizing {self._patterns()}")
            quantizes_new = any(rule.stage == self.plan.stages()[-1] for rule in self.plan.activations)
            quantize(self.origin, start, self.plan, self.calibration if quantizes_new else None)
        with atomic_write(plan) as file:
            file.write(plan_text(self.plan) + "\n")
        if not self._is_trained(training):
            own = {"--finetune-from-model": start, "--compression-plan": plan, "--save-dir": self.folder}
            self._train(training, own, lock)
        best, last = self.folder / "checkpoint_best.pt", self.folder / "checkpoint_last.pt"
        write_state(without_training_state(load_state(best if best.exists() else last)), result)
        return result

    def _say(self, what: str) -> None:
        print(f"{self.title}: {what}", file=sys.stderr, flush=True)

    def _patterns(self) -> str:
        """The patterns of this stage, for messages."""
        last = self.plan.stages()[-1]
        weights = [pattern for rule in self.plan.weights if rule.stage == last for pattern in rule.modules]
        inputs = [pattern for rule in self.plan.activations if rule.stage == last for pattern in rule.modules]
        found = [f"weights {' '.join(weights)}"] if weights else []
        return ", ".join(found + ([f"activations {' '.join(inputs)}"] if inputs else []))

    def _train(self, training: Training, own: Mapping[str, str | Path], lock: int) -> None:
        """Run or resume the training."""
        words, last = training.words(self.folder / "start.pt", own), self.folder / "checkpoint_last.pt"
        self._say("resuming the training" if last.exists() else "training")
        try:
            run_training(words, self.folder / "errors.log", lock)
        except TrainingError as error:
            advice = "nothing was trained yet: correct the command and run it again"
            if last.exists():
                advice = "the same command resumes from the last checkpoint"
            raise TrainingError(f"{self.title}: {error}; {advice}") from None

    def _claim(self, training: Training) -> None:
        """Write ``stage.json``, or compare with it; before anything is trained, it may change."""
        own = {
            "plan": json.loads(plan_text(self.plan)),
            "training": [*training.command, *training.arguments],
            "model": file_sha256(self.origin),
            "calibration": None if self.calibration is None else vars(self.calibration),
        }
        note = self.folder / "stage.json"
        noted = json.loads(note.read_text()) if note.exists() else {}
        changed = [name for name, value in json.loads(json.dumps(own)).items() if noted.get(name) != value]
        if noted and not changed:
            return
        if any((self.folder / name).exists() for name in ("model.pt", "checkpoint_last.pt", "checkpoint_best.pt")):
            raise ConfigError(
                f"--stages-dir: {self.folder} was begun with another {' and another '.join(changed)}; "
                "name another folder, or remove this one"
            )
        if changed != ["training"]:
            (self.folder / "start.pt").unlink(missing_ok=True)
        with atomic_write(note) as file:
            json.dump(own, file, indent=2)

    def _is_trained(self, training: Training) -> bool:
        """Whether the last update was made; fairseq would make one more."""
        last, updates = self.folder / "checkpoint_last.pt", last_value(training.arguments, "--max-update")
        return updates is not None and last.exists() and num_updates(load_state(last)) >= int(updates)
