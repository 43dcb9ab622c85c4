"""Learning rates of parts of a model as parameter groups, and a first phase with another learning rate.

A task asks for both with an attribute ``learning_rates``, a :class:`LearningRates`.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby, islice
from typing import Any

import torch
from fairseq import optim
from fairseq.logging import metrics
from fairseq.optim.lr_scheduler.reduce_lr_on_plateau import ReduceLROnPlateauLRSchedule
from fairseq.trainer import Trainer
from torch import nn

from fairseq_compress.compat.replacing import is_replaced, replace
from fairseq_compress.errors import ConfigError

RATE_GROUP = "learning rate of "
"""Prefix of the ``param_group`` of a parameter whose learning rate has a factor; fairseq's float32 copies keep it."""
_OF_GROUP = ("lr_factor", "lr_group", "base_lr")


class LearningRates:
    """Factors of the learning rate of groups of parameters, and a first phase that no scheduler knows of.

    Both are functions of the number of the update alone, so a resumed training needs no state.
    """

    def __init__(self) -> None:
        self.groups: dict[str, Callable[[int], float]] = {}
        self.first_updates = 0
        """Updates of the first phase, after which schedule and optimizer start again."""
        self._rate: Callable[[int], float] = lambda update: 1.0

    def __bool__(self) -> bool:
        return bool(self.groups or self.first_updates)

    def group(self, name: str, parameters: Iterable[nn.Parameter], factor: Callable[[int], float]) -> None:
        """Let ``factor(update)`` multiply the learning rate of some parameters; 0 freezes them."""
        for parameter in parameters:
            parameter.param_group = RATE_GROUP + name  # type: ignore[attr-defined]
        self.groups[name] = factor

    def begin_with(self, updates: int, rate: Callable[[int], float]) -> None:
        """Start the training with a phase whose learning rate is ``rate(update)`` times ``--lr``."""
        self.first_updates, self._rate = updates, rate

    def factors(self, update: int) -> dict[str, float]:
        """The factor of each group in the step after ``update`` updates."""
        return {name: factor(update) for name, factor in self.groups.items()}

    def scheduled(self, update: int) -> tuple[int, float | None]:
        """The scheduler's number of updates, and in the first phase the learning rate as a fraction of ``--lr``."""
        first = self.first_updates
        return max(0, update - first), self._rate(update) if update < first else None


def patch_learning_rates() -> None:
    """Let fairseq's optimizers have groups with a factor of the learning rate, and trainings a first phase.

    :func:`fairseq.optim.build_optimizer` cuts the optimizer's only group wherever the ``param_group`` of its parameters
    changes, in their order; checkpoints hold one group. Schedulers set and get the learning rate without the factors,
    which the trainer sets after each update. A factor of 0 excludes a parameter from gradient norm and weight decay.
    """
    if not is_replaced(optim.build_optimizer):
        _patch_optimizers()
        _patch_trainer()


def _patch_optimizers() -> None:
    kind = optim.FairseqOptimizer
    build, set_rate, get_rate, save, load = (
        optim.build_optimizer, kind.set_lr, kind.get_lr, kind.state_dict, kind.load_state_dict
    )  # fmt: skip

    @functools.wraps(build)
    def build_optimizer(cfg: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        params = list(params)
        if any(map(_group_of, params)) and getattr(cfg, "_name", None) == "composite":
            raise ConfigError("--optimizer: must be a single one where parts of a model have rates, got composite")
        optimizer = build(cfg, params, *args, **kwargs)
        _split(optimizer)
        return optimizer

    @functools.wraps(set_rate)
    def set_lr(self: Any, lr: float) -> None:
        set_rate(self, lr)
        for group in _rate_groups(self):
            group["base_lr"], group["lr"] = lr, lr * group["lr_factor"]

    @functools.wraps(get_rate)
    def get_lr(self: Any) -> Any:
        return next((group["base_lr"] for group in _rate_groups(self)), None) or get_rate(self)

    @functools.wraps(save)
    def state_dict(self: Any) -> Any:
        state = save(self)
        if groups := [group for group in state.get("param_groups", ()) if "lr_factor" in group]:
            numbers = [number for group in groups for number in group["params"]]
            whole = {name: value for name, value in groups[0].items() if name not in _OF_GROUP}
            state["param_groups"] = [whole | {"lr": groups[0]["base_lr"], "params": numbers}]
        return state

    @functools.wraps(load)
    def load_state_dict(self: Any, state: Any, optimizer_overrides: Any = None) -> None:
        if (own := _rate_groups(self)) and len(state["param_groups"]) == 1:
            (whole,) = state["param_groups"]
            numbers = iter(whole["params"])
            groups = [
                whole | {name: group[name] for name in _OF_GROUP} | {"params": [*islice(numbers, len(group["params"]))]}
                for group in own
            ]
            state = {**state, "param_groups": groups}
        load(self, state, optimizer_overrides)
        for group in _rate_groups(self):
            group["base_lr"], group["lr"] = group["lr"], group["lr"] * group["lr_factor"]

    replace(optim, "build_optimizer", build, build_optimizer)
    for original, patched in ((set_rate, set_lr), (get_rate, get_lr), (save, state_dict), (load, load_state_dict)):
        replace(kind, patched.__name__, original, patched)


def _patch_trainer() -> None:
    step, clip = Trainer.lr_step_update, Trainer.clip_grad_norm

    @functools.wraps(step)
    def lr_step_update(self: Any) -> Any:
        rates, made = getattr(self.task, "learning_rates", None), self.get_num_updates()
        if not rates:
            return step(self)
        _check_schedule(self)
        set_rate_factors(self.optimizer, rates.factors(made))
        self._num_updates, factor = rates.scheduled(made)
        try:
            rate = step(self)
        finally:
            self._num_updates = made
        if factor is not None:
            rate = factor * self.cfg.optimization.lr[0]
            metrics.log_scalar("lr", rate, weight=0, priority=300)
        self.optimizer.set_lr(rate if factor is not None else self.optimizer.get_lr())
        return rate

    @functools.wraps(clip)
    def clip_grad_norm(self: Any, clip_norm: float) -> Any:
        drop_frozen_gradients(self.optimizer)
        norm = clip(self, clip_norm)
        drop_frozen_gradients(self.optimizer)  # those of the copies in float32 that the norm is taken of
        return norm

    replace(Trainer, "lr_step_update", step, lr_step_update)
    replace(Trainer, "clip_grad_norm", clip, clip_grad_norm)


def set_rate_factors(optimizer: Any, factors: Mapping[str, float]) -> None:
    """Set the factors of groups of an optimizer, by the name of the group without :data:`RATE_GROUP`."""
    groups = _rate_groups(optimizer)
    missing = {RATE_GROUP + name for name in factors} - {group["lr_group"] for group in groups}
    if missing:
        raise ConfigError(
            "--fp16-no-flatten-grads: must be given with --fp16, and no --ddp-backend fully_sharded, where parts of a "
            f"model have learning rates of their own, got none of {', '.join(sorted(missing))} in the optimizer"
        )
    for group in groups:
        group["lr_factor"] = factors.get(str(group["lr_group"]).removeprefix(RATE_GROUP), 1.0)


def drop_frozen_gradients(optimizer: Any) -> None:
    """Remove the gradients of parameters whose learning rate has the factor 0, and of their copies in float32."""
    frozen = {group["lr_group"] for group in _rate_groups(optimizer) if group["lr_factor"] == 0}
    if frozen:
        for parameter in (*getattr(optimizer, "fp16_params", ()), *optimizer.params):
            if _group_of(parameter) in frozen:
                parameter.grad = None


def reset_optimizer(optimizer: Any) -> None:
    """Set the moments and step counts of a fairseq optimizer to zero, as they are in a new one."""
    inner = optimizer.optimizer
    for state in inner.state.values():
        for name, value in state.items():
            state[name] = torch.zeros_like(value) if torch.is_tensor(value) else type(value)(0)
    for group in inner.param_groups:
        if "step" in group:
            group["step"] = 0


def _group_of(parameter: Any) -> str | None:
    name = getattr(parameter, "param_group", None)
    return name if isinstance(name, str) and name.startswith(RATE_GROUP) else None


def _split(optimizer: Any) -> None:
    inner = getattr(optimizer, "_optimizer", None)
    if not isinstance(inner, torch.optim.Optimizer) or len(inner.param_groups) != 1:
        return
    (whole,) = inner.param_groups
    runs = [(name, list(parameters)) for name, parameters in groupby(whole["params"], _group_of)]
    if any(name for name, _ in runs):
        inner.param_groups[:] = [
            {**whole, "params": parameters, "lr_group": name, "lr_factor": 1.0, "base_lr": whole["lr"]}
            for name, parameters in runs
        ]


def _rate_groups(optimizer: Any) -> list[dict[str, Any]]:
    return [group for group in optimizer.param_groups if "lr_factor" in group]


def _check_schedule(trainer: Any) -> None:
    """Refuse schedulers that do not count updates, and several optimizers."""
    schedules = "--lr-scheduler: must be inverse_sqrt, polynomial_decay, cosine, fixed or another that counts updates"
    if isinstance(trainer.lr_scheduler, ReduceLROnPlateauLRSchedule):
        raise ConfigError(f"{schedules}, in a training of two phases, got reduce_lr_on_plateau")
    if not hasattr(trainer.optimizer.optimizer, "state"):
        raise ConfigError("--optimizer: must be a single one in a training of two phases, got composite")
