"""The weights of a model by the names of its state dict, and which of them a graph has read."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.modules.layer_sharing import state_of_all_layers
from fairseq_compress.modules.sparse_linear import SparseLinear
from fairseq_compress.modules.structured import structured_modules
from fairseq_compress.weights.groups import effective_state

ROWS = 32  # tables have a multiple of it: kernels are up to a fifth slower with an odd number
_NOT_READ = ("version", "_float_tensor", "entries", "support_check", "values", "embed_positions.weight")


class Weights(Mapping[str, Floats]):
    """Arrays in float32. Layers that share have all their keys; a sparse layer has its dense ``weight``."""

    def __init__(self, model: Any) -> None:
        state: dict[str, Tensor] = state_of_all_layers(model, effective_state(model))
        for name, layer in structured_modules(model).items():
            if isinstance(layer, SparseLinear):
                state[f"{name}.weight"] = layer.dense_weight().detach()
        self._arrays: dict[str, Floats] = {key: value.float().numpy() for key, value in state.items()}
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Floats:
        array = self._arrays[key]
        self._read.add(key)
        return array

    def __contains__(self, key: object) -> bool:
        return key in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def table(self, name: str) -> Floats:
        """The weight of a table of tokens, with rows of zeros at its end."""
        weight = self[f"{name}.weight"]
        return np.pad(weight, [(0, -len(weight) % ROWS), (0, 0)])

    def first_equal(self, name: str, names: tuple[str, ...]) -> str | None:
        """The first of the ``names`` of tables whose weight is that of ``name``."""
        weight = self[f"{name}.weight"]
        every = (other for other in names if f"{other}.weight" in self)
        return next((other for other in every if np.array_equal(self[f"{other}.weight"], weight)), None)

    def unread(self) -> list[str]:
        """Keys that no graph has read, but for those that a graph does not need."""
        return [key for key in self._arrays if key not in self._read and not key.endswith(_NOT_READ)]
