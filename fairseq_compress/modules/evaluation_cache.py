"""A cache of tensors that depend on weights only, for generation."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor


class EvaluationCache:
    """Tensors derived from others, valid until one of these is written to, replaced or moved. A copy starts empty."""

    def __init__(self) -> None:
        self.enabled = False
        """For the owner: set by ``make_generation_fast_``, which fairseq calls before it generates."""
        self.values: dict[str, Tensor] = {}
        self._stamp: list[Any] = []

    def get(self, name: str, sources: Iterable[Tensor], compute: Callable[[], Tensor]) -> Tensor:
        """The value called ``name``; all values are discarded when a source changed."""
        stamp = [(source.data_ptr(), source._version, source.dtype, source.device) for source in sources]
        if stamp != self._stamp:
            self._stamp, self.values = stamp, {}
        if name not in self.values:
            self.values[name] = compute()
        return self.values[name]

    def clear(self) -> None:
        self.values = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"values": {}}
