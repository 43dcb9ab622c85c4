"""The arithmetic mean of checkpoints of one training run, as one small checkpoint.

Floating-point weights are averaged in float64 in the sorted order of the paths, w̄ = (w₁ + ... + w_N) / N; masks and
other integers must be equal.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from fairseq_compress.checkpoint.load import load_state
from fairseq_compress.checkpoint.state import num_updates, without_training_state, write_converted
from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.functional.ties import tied_groups

Weights = Mapping[str, Tensor]

# The names that fairseq gives its checkpoints; best, last, crash and half-written files do not match.
CHECKPOINT_NAMES = {
    "epoch": ("checkpointE.pt", re.compile(r"checkpoint(\d+)\.pt")),
    "update": ("checkpoint_E_U.pt", re.compile(r"checkpoint_\d+_(\d+)\.pt")),
}
FINAL_CHECKPOINT = "checkpoint_last.pt"

# Float buffers of fairseq that are no weights; `_float_tensor` is uninitialized memory.
VERSION_BUFFER = "version"
PLACEHOLDER_BUFFER = "_float_tensor"


def is_parameter(key: str, tensor: Tensor) -> bool:
    """Whether an entry of a state dict is a trained weight, not a buffer."""
    name = key.rpartition(".")[2]
    return tensor.is_floating_point() and name not in (VERSION_BUFFER, PLACEHOLDER_BUFFER)


def count_parameters(weights: Weights) -> int:
    """Trained numbers of a state dict, tied ones once."""
    groups = tied_groups(weights, by_value=True)
    return sum(weights[keys[0]].numel() for keys in groups if is_parameter(keys[0], weights[keys[0]]))


def select_checkpoints(
    directory: str | os.PathLike[str], last: int, by: str = "epoch", include_last: bool = False
) -> list[Path]:
    """The newest ``last`` checkpoints of a ``--save-dir``, oldest first.

    Args:
        by: ``epoch`` takes ``checkpointE.pt``; ``update`` takes ``checkpoint_E_U.pt``, ordered by the update U.
        include_last: include ``checkpoint_last.pt`` if it has more updates than these.
    """
    if last < 1:
        raise ConfigError(f"--last must be at least 1, got {last}")
    if by not in CHECKPOINT_NAMES:
        raise ConfigError(f"--by must be one of {', '.join(CHECKPOINT_NAMES)}, got {by}")
    if not Path(directory).is_dir():
        raise CheckpointError(f"--checkpoint {directory}: no such directory")
    shown, pattern = CHECKPOINT_NAMES[by]
    matches = ((pattern.fullmatch(path.name), path) for path in Path(directory).iterdir())
    found = [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]
    final = Path(directory) / FINAL_CHECKPOINT
    if include_last and final.is_file() and (not found or _updates(final) > _updates(found[-1])):
        found.append(final)
    if len(found) < last:
        raise CheckpointError(f"--last {last}: {directory} has only {len(found)} files named {shown} (--by {by})")
    return found[-last:]


def _updates(path: Path) -> int:
    return num_updates(load_state(path))


def average_checkpoints(paths: Sequence[str | os.PathLike[str]], progress: bool = False) -> dict[str, Any]:
    """The mean of checkpoints, as a checkpoint for generation, validation and ``--finetune-from-model``.

    Tied weights stay tied. Configuration and task state are those of the input with the most updates;
    ``extra_state["averaged_from"]`` lists the inputs.
    """
    ordered = _distinct(paths)
    total: _RunningSum | None = None
    sources: list[dict[str, Any]] = []
    newest: dict[str, Any] = {}
    for path in tqdm(ordered, desc="averaging", unit="file", disable=None if progress else True):
        state = load_state(path)
        weights = checked_weights(state.pop("model"), path)
        if total is None:
            total = _RunningSum(path, weights)
        else:
            total.add(path, weights)
        updates = num_updates(state)
        if updates >= max((source["num_updates"] for source in sources), default=0):
            newest = {key: value for key, value in state.items() if key != "last_optimizer_state"}
        sources.append({"name": path.name, "num_updates": updates})
    assert total is not None  # _distinct refused an empty list
    averaged = without_training_state(newest)
    averaged["extra_state"] = {"averaged_from": sources} | averaged["extra_state"]
    return averaged | {"model": total.mean()}


def write_average(
    paths: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str], progress: bool = False
) -> dict[str, Any]:
    """Write :func:`average_checkpoints` of ``paths`` to ``output``, atomically, and return it."""
    return write_converted(paths, output, lambda: average_checkpoints(paths, progress), dict)


class _RunningSum:
    """The float64 sum of the weights of checkpoints that agree in keys, shapes, dtypes and ties."""

    def __init__(self, path: Path, weights: Weights) -> None:
        self.path, self.count = path, 1
        self.groups = tied_groups(weights, by_value=True)
        self.layout = {key: (tensor.shape, tensor.dtype) for key, tensor in weights.items()}
        # Starting from the first input, not from zeros, preserves -0.0.
        self.sums = {
            keys[0]: weights[keys[0]].to(torch.float64 if is_parameter(keys[0], weights[keys[0]]) else None, copy=True)
            for keys in self.groups
        }

    def add(self, path: Path, weights: Weights) -> None:
        """Add a checkpoint; raises CheckpointError if its layout differs."""
        self._refuse_other_layout(path, weights)
        groups = tied_groups(weights, by_value=True)
        _refuse_other_ties(self.groups, groups, self.path, path)
        _refuse_other_ties(groups, self.groups, path, self.path)
        for key, total in self.sums.items():
            if is_parameter(key, weights[key]):
                total.add_(weights[key])
            elif not key.endswith(PLACEHOLDER_BUFFER) and not torch.equal(total, weights[key]):
                raise CheckpointError(f"buffer {key} differs between {self.path} and {path}, so it has no average")
        self.count += 1

    def mean(self) -> dict[str, Tensor]:
        """The average in the dtype of the inputs, keys in their order; the keys of one group get one tensor."""
        means: dict[str, Tensor] = {}
        for keys in self.groups:
            total = self.sums[keys[0]]
            mean = (total / self.count).to(self.layout[keys[0]][1]) if is_parameter(keys[0], total) else total
            means.update(dict.fromkeys(keys, mean))
        return {key: means[key] for key in self.layout}

    def _refuse_other_layout(self, path: Path, weights: Weights) -> None:
        if differing := [key for key in [*self.layout, *weights] if (key in self.layout) != (key in weights)]:
            owners = {key: self.path if key in self.layout else path for key in differing}
            shown = ", ".join(f"{key} only in {owners[key].name}" for key in differing[:3])
            raise CheckpointError(f"{path} and {self.path} differ in {len(differing)} of their keys: {shown}")
        for key, tensor in weights.items():
            shape, dtype = self.layout[key]
            if tensor.shape != shape:
                raise CheckpointError(
                    f"weight {key} has shape {tuple(shape)} in {self.path} and {tuple(tensor.shape)} in {path}"
                )
            if tensor.dtype != dtype:
                raise CheckpointError(f"weight {key} is {dtype} in {self.path} and {tensor.dtype} in {path}")


def _refuse_other_ties(groups: list[tuple[str, ...]], others: list[tuple[str, ...]], tied: Path, free: Path) -> None:
    whole = [set(keys) for keys in others]
    for keys in groups:
        if not any(other.issuperset(keys) for other in whole):
            raise CheckpointError(f"{' = '.join(keys)} are tied in {tied}, but not all of them in {free}")


def _distinct(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    ordered = sorted(Path(path) for path in paths)
    if not ordered:
        raise ConfigError("--checkpoint: at least one checkpoint is needed")
    seen: dict[Path, Path] = {}
    for path in ordered:
        if (other := seen.setdefault(path.resolve(), path)) is not path:
            raise ConfigError(f"--checkpoint: {path} and {other} are the same file, which would count twice")
    return ordered


def checked_weights(model: Any, path: Path) -> Weights:
    """The weights of a checkpoint."""
    if not isinstance(model, Mapping) or not model:
        raise CheckpointError(f"checkpoint {path}: 'model' must be a dictionary of weights, got {type(model).__name__}")
    for key, value in model.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"checkpoint {path}: {key} must be a tensor, got {type(value).__name__}")
        if is_parameter(key, value) and not torch.isfinite(value).all():
            raise CheckpointError(f"checkpoint {path}: weight {key} holds NaN or infinity; the training diverged")
    return model
