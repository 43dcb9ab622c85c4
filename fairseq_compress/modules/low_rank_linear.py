"""Low-rank linear layers."""

from typing import Any

import torch
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layers.low_rank import truncated_svd
from fairseq_compress.modules.axes import DENSE_COLUMNS, DENSE_ROWS, RANK, Declaration
from fairseq_compress.modules.structured import StructuredWeight


class LowRankLinear(StructuredWeight):
    r"""A linear layer :math:`y = B (A x) + b`, with the weight W = B A of rank r.

    B (O, r) is the weight of the child ``up``, which has the bias b, and A (r, I) that of the child ``down``. A state
    dict of ``nn.Linear`` loads as its truncated SVD. A is initialized with orthonormal rows, B normal.

    Args:
        in_features: I.
        out_features: O.
        rank: r, in [1, min(I, O)].
        std: initial standard deviation of the entries of W; by default that of ``nn.Linear``, (3 I)^-0.5.
    """

    def __init__(
        self, in_features: int, out_features: int, rank: int, bias: bool = True, std: float | None = None
    ) -> None:
        super().__init__()
        if not 1 <= rank <= min(in_features, out_features):
            raise ConfigError(
                f"rank: must be in [1, {min(in_features, out_features)}] for {in_features} -> {out_features} "
                f"features, got {rank}"
            )
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=bias)
        self.register_load_state_dict_pre_hook(_bias_of_dense)
        self.reset_parameters((3 * in_features) ** -0.5 if std is None else std)

    def reset_parameters(self, std: float) -> None:
        """Draw the factors. An entry of W has r summands, whose variance is var(B) / I."""
        nn.init.orthogonal_(self.down.weight)
        nn.init.normal_(self.up.weight, std=std * (self.in_features / self.rank) ** 0.5)
        if self.bias is not None:
            bound = self.in_features**-0.5
            nn.init.uniform_(self.bias, -bound, bound)

    @property
    def bias(self) -> nn.Parameter | None:
        """(O,), that of ``up``."""
        return self.up.bias

    @property
    def weight(self) -> Tensor:
        """W (O, I), computed at each access."""
        return self.dense_weight()

    @property
    def dense_shape(self) -> tuple[int, int]:
        return self.out_features, self.in_features

    def dense_weight(self) -> Tensor:
        return self.up.weight @ self.down.weight

    def axes(self) -> Declaration:
        return {"up": (DENSE_ROWS, RANK), "down": (RANK, DENSE_COLUMNS)}

    @torch.no_grad()
    def approximation(self, weight: Tensor) -> dict[str, Tensor]:
        up, down = truncated_svd(weight, self.rank)
        return {"down.weight": down, "up.weight": up}

    @property
    def multiply_adds(self) -> int:
        return self.rank * (self.in_features + self.out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return self.up(self.down(x))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"


def _bias_of_dense(layer: LowRankLinear, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """In the state dict of a dense layer the bias has no ``up`` before it."""
    if layer.bias is not None and f"{prefix}bias" in state:
        state[f"{prefix}up.bias"] = state.pop(f"{prefix}bias")
