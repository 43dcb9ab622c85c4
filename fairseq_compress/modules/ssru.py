"""The simpler simple recurrent unit."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_compress.functional.layers.recurrence import gated_recurrence
from fairseq_compress.modules.axes import WIDTH, Declaration
from fairseq_compress.modules.recurrent_state import RecurrentUnit, State, state_type


class SSRU(RecurrentUnit):
    r"""The simpler simple recurrent unit (Kim et al. 2019, "From Research to Production and Back", D19-5632):

    .. math::
        f_t = \sigma(W_f x_t + b_f), \quad
        c_t = f_t \odot c_{t-1} + (1 - f_t) \odot W x_t, \quad
        h_t = \mathrm{ReLU}(c_t)

    An SRU (arXiv:1709.02755) without reset gate and highway: 2 C² + C parameters and 2 C² multiply-adds a step, where C
    is ``embed_dim``. Gate and state are computed in float32. Initialized as in Marian: Glorot's uniform distribution,
    b_f = 0.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.forget = nn.Linear(embed_dim, embed_dim)
        self.project = nn.Linear(embed_dim, embed_dim, bias=False)
        nn.init.xavier_uniform_(self.forget.weight)
        nn.init.zeros_(self.forget.bias)
        nn.init.xavier_uniform_(self.project.weight)

    def axes(self) -> Declaration:
        return {"forget": (WIDTH, WIDTH), "project": (WIDTH, WIDTH)}

    @property
    def state_widths(self) -> dict[str, int]:
        """One state c (B, C)."""
        return {"state": self.embed_dim}

    def scan(self, x: Tensor, padding: Tensor | None, state: State) -> tuple[Tensor, State]:
        """See :meth:`RecurrentUnit.scan`; the outputs are in the type of the state."""
        if len(x) == 1 and padding is None and state and not torch.is_grad_enabled():
            return self._step(x[0], state["state"])
        forget = torch.sigmoid(self.forget(x).to(state_type(x)))
        if padding is not None:
            forget = forget.masked_fill(padding.bool().t().unsqueeze(-1), 1.0)
        states = gated_recurrence(forget, self.project(x), state.get("state"))
        return F.relu(states), {"state": states[-1]}

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, State]:
        """One step of decoding, (B, C) -> (1, B, C): the same digits, in half of the time of a scan."""
        forget = torch.sigmoid(self.forget(x).to(state.dtype))
        state = torch.lerp(self.project(x).to(state.dtype), state, forget)
        return F.relu(state).unsqueeze(0), {"state": state}
