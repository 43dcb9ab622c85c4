"""What a training asks of its optimizer: learning rates of parts of the model, and a first phase."""

from collections.abc import Callable, Iterable

from torch import nn

from fairseq_compress.compat import RATE_GROUP


class LearningRates:
    """Factors of the learning rate of groups of parameters, and a first phase that no scheduler knows of.

    Both are functions of the number of the update alone, so a resumed training needs no state of them.
    :mod:`fairseq_compress.compat` makes groups of the optimizer of them, when fairseq builds it.
    """

    def __init__(self) -> None:
        self.groups: dict[str, Callable[[int], float]] = {}
        self.first_updates = 0
        """Updates of the first phase; the scheduler counts from its end, and the optimizer is then a new one."""
        self._rate: Callable[[int], float] = lambda update: 1.0

    def __bool__(self) -> bool:
        return bool(self.groups or self.first_updates)

    def group(self, name: str, parameters: Iterable[nn.Parameter], factor: Callable[[int], float]) -> None:
        """Let ``factor(update)`` multiply the learning rate of some parameters; 0 freezes them."""
        for parameter in parameters:
            parameter.param_group = RATE_GROUP + name  # type: ignore[attr-defined]
        self.groups[name] = factor

    def begin_with(self, updates: int, rate: Callable[[int], float]) -> None:
        """Let the training begin with a phase whose learning rate is ``rate(update)`` times ``--lr``."""
        self.first_updates, self._rate = updates, rate

    def factors(self, update: int) -> dict[str, float]:
        """The factor of each group in the step after ``update`` updates."""
        return {name: factor(update) for name, factor in self.groups.items()}

    def scheduled(self, update: int) -> tuple[int, float | None]:
        """The updates that the scheduler is told, and in the first phase the learning rate as a part of ``--lr``."""
        first = self.first_updates
        return max(0, update - first), self._rate(update) if update < first else None
