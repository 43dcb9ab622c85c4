"""Average attention: the mean of all tokens so far, with gates, in place of self-attention."""

import torch
from fairseq import utils
from fairseq.modules import FairseqDropout
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layers.recurrence import running_sums
from fairseq_compress.modules.axes import AVERAGE_FFN, WIDTH, Declaration
from fairseq_compress.modules.recurrent_state import RecurrentUnit, State


class AverageAttention(RecurrentUnit):
    r"""The average attention network (Zhang et al. 2018, arXiv:1805.00631):

    .. math::
        g_t = \mathrm{FFN}\Big(\frac1t \sum_{k \le t} x_k\Big), \quad
        [i_t; o_t] = \sigma(W [x_t; g_t] + b), \quad
        h_t = i_t \odot x_t + o_t \odot g_t

    with FFN(m) = W_2 φ(W_1 m + b_1) + b_2, or the mean itself. Sum and mean are computed in float32, without padding.
    Weights start from Glorot's uniform distribution, biases at 0.

    ``embed_dim`` is C, ``ffn_embed_dim`` the inner width of FFN (0: g_t is the mean), ``dropout`` is inside of FFN, and
    ``activation`` φ one of fairseq's activation functions.
    """

    def __init__(self, embed_dim: int, ffn_embed_dim: int = 0, dropout: float = 0.0, activation: str = "relu") -> None:
        super().__init__(embed_dim)
        if ffn_embed_dim < 0:
            raise ConfigError(f"ffn_embed_dim: must be 0 (none) or positive, got {ffn_embed_dim}")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout: must be in [0, 1), got {dropout}")
        known = utils.get_available_activation_fns()
        if activation not in known:
            raise ConfigError(f"activation: must be one of {', '.join(known)}, got {activation!r}")
        self.ffn_embed_dim, self.activation = ffn_embed_dim, activation
        self.activation_fn = utils.get_activation_fn(activation)
        self.dropout_module = FairseqDropout(dropout, module_name=type(self).__name__)
        if ffn_embed_dim:
            self.fc1 = nn.Linear(embed_dim, ffn_embed_dim)
            self.fc2 = nn.Linear(ffn_embed_dim, embed_dim)
        self.gates = nn.Linear(2 * embed_dim, 2 * embed_dim)
        for linear in self.children():
            if isinstance(linear, nn.Linear):
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)

    def axes(self) -> Declaration:
        return {"fc1": (AVERAGE_FFN, WIDTH), "fc2": (WIDTH, AVERAGE_FFN)}

    @property
    def state_widths(self) -> dict[str, int]:
        """The sum (B, C) of the tokens so far and their number (B, 1)."""
        return {"sum": self.embed_dim, "count": 1}

    def scan(self, x: Tensor, padding: Tensor | None, state: State) -> tuple[Tensor, State]:
        start = (state["sum"], state["count"]) if state else None
        sums, counts = running_sums(x, padding, start)
        average = (sums / counts.clamp_min(1.0)).to(x.dtype)
        if self.ffn_embed_dim:
            average = self.fc2(self.dropout_module(self.activation_fn(self.fc1(average))))
        average = average.to(x.dtype)  # under autocast a product has another dtype
        of_input, of_average = torch.sigmoid(self.gates(torch.cat([x, average], dim=-1))).chunk(2, dim=-1)
        return of_input * x + of_average * average, {"sum": sums[-1], "count": counts[-1]}

    def extra_repr(self) -> str:
        inner = f"ffn_embed_dim={self.ffn_embed_dim}, activation={self.activation}, " if self.ffn_embed_dim else ""
        return inner + super().extra_repr()
