"""A training of two phases: the second has a new schedule of the learning rate and a new optimizer."""

import functools
from typing import Any

import torch
from fairseq.logging import metrics
from fairseq.optim.lr_scheduler.reduce_lr_on_plateau import ReduceLROnPlateauLRSchedule
from fairseq.trainer import Trainer

from fairseq_compress.compat.replacing import is_replaced, replace
from fairseq_compress.errors import ConfigError


def patch_phases() -> None:
    """Let a task have a first phase, if it has the methods ``learning_rate_of_phase`` and ``drop_frozen_gradients``.

    ``learning_rate_of_phase(update)`` gives the updates that the scheduler is told of, and a factor of ``--lr`` where
    that counts instead, or None. ``drop_frozen_gradients()`` is called before gradients are clipped: those of
    parameters that do not move are no part of the norm.
    """
    original, clip = Trainer.lr_step_update, Trainer.clip_grad_norm
    if is_replaced(original):
        return

    @functools.wraps(original)
    def lr_step_update(self: Any) -> Any:
        made = self.get_num_updates()
        ask = getattr(self.task, "learning_rate_of_phase", lambda update: (update, None))
        self._num_updates, factor = ask(made)
        try:
            if self._num_updates != made or factor is not None:
                _check_schedule(self)
            rate = original(self)
        finally:
            self._num_updates = made
        if factor is not None:
            rate = factor * self.cfg.optimization.lr[0]
            self.optimizer.set_lr(rate)
            metrics.log_scalar("lr", rate, weight=0, priority=300)
        return rate

    @functools.wraps(clip)
    def clip_grad_norm(self: Any, clip_norm: float) -> Any:
        getattr(self.task, "drop_frozen_gradients", lambda: None)()
        return clip(self, clip_norm)

    replace(Trainer, "lr_step_update", original, lr_step_update)
    replace(Trainer, "clip_grad_norm", clip, clip_grad_norm)


def reset_optimizer(optimizer: Any) -> None:
    """Set the moments and step counts of a fairseq optimizer to zero, as they are in a new one."""
    inner = optimizer.optimizer
    for state in inner.state.values():
        for name, value in state.items():
            state[name] = torch.zeros_like(value) if torch.is_tensor(value) else type(value)(0)
    for group in inner.param_groups:
        if "step" in group:
            group["step"] = 0


def _check_schedule(trainer: Any) -> None:
    """Refuse what a second phase cannot start again: a rate that is kept in the optimizer, several optimizers."""
    schedules = "--lr-scheduler: must be inverse_sqrt, polynomial_decay, cosine, fixed or another that counts updates"
    if isinstance(trainer.lr_scheduler, ReduceLROnPlateauLRSchedule):
        raise ConfigError(f"{schedules}, in a training of two phases, got reduce_lr_on_plateau")
    if not hasattr(trainer.optimizer.optimizer, "state"):
        raise ConfigError("--optimizer: must be a single one in a training of two phases, got composite")
