"""Modules of MobileBERT layers: norms, bottlenecks, stacked feed-forward networks."""

from typing import Any

import torch
from fairseq import utils
from fairseq.modules import FairseqDropout, LayerNorm
from torch import Tensor, nn

from fairseq_compress.architecture.shape import NORMS
from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.axes import FFN, INNER, Declaration


class ElementwiseAffine(nn.Module):
    r"""NoNorm of MobileBERT (arXiv:2004.02984): :math:`y = \gamma \odot h + \beta`, without statistics of h.

    γ (``weight``) starts at 1 and β (``bias``) at 0, as in a layer norm; both are of size C = ``width``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(f"width: must be at least 1, got {width}")
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Of the shape of ``hidden`` (..., C)."""
        if hidden.size(-1) != self.weight.size(0):  # one of width 1 would be broadcast over all features
            raise ConfigError(f"hidden: must have {self.weight.size(0)} features, got {hidden.size(-1)}")
        return hidden * self.weight + self.bias

    def extra_repr(self) -> str:
        return f"{self.weight.size(0)}"


class Bottleneck(nn.Module):
    r"""A linear map between the streams outside and inside of a layer (MobileBERT).

    :math:`y = norm(W h + b)` at the input; with the residual r, at the output, :math:`y = norm(r + dropout(W h + b))`.

    Args:
        in_features: C, width of h.
        out_features: D, width of y, r and ``norm``.
    """

    def __init__(self, in_features: int, out_features: int, norm: nn.Module, dropout: nn.Module | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.dropout_module = dropout
        self.norm = norm

    def forward(self, hidden: Tensor, residual: Tensor | None = None) -> Tensor:
        """(..., D) from ``hidden`` (..., C) and, at the output, ``residual`` (..., D)."""
        projected: Tensor = self.linear(hidden)
        if self.dropout_module is not None:
            projected = self.dropout_module(projected)
        return self.norm(projected if residual is None else residual + projected)


class ResidualFeedForward(nn.Module):
    r"""A feed-forward network with its residual and norm, :math:`y = norm(h + W_2\, dropout(\phi(W_1 h + b_1)) + b_2)`.

    Args:
        width: C, of h and y.
        inner_width: rows of W₁.
        cfg: fairseq's configuration, for φ and its dropout.
        layer_name: class of the dropout for ``--retain-dropout-modules``.
    """

    def __init__(self, width: int, inner_width: int, cfg: Any, norm: nn.Module, layer_name: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner_width)
        self.activation_fn = utils.get_activation_fn(activation=cfg.activation_fn)
        dropout = float(cfg.activation_dropout or cfg.relu_dropout or 0)  # the latter as in fairseq's layers
        self.activation_dropout_module = FairseqDropout(dropout, module_name=layer_name)
        self.fc2 = nn.Linear(inner_width, width)
        self.norm = norm

    def axes(self) -> Declaration:
        return {"fc1": (FFN, INNER), "fc2": (INNER, FFN), "norm": (INNER,)}

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.activation_dropout_module(self.activation_fn(self.fc1(hidden)))
        return self.norm(hidden + self.fc2(inner))


def make_norm(kind: str, width: int, export: bool = False) -> nn.Module:
    """fairseq's layer norm (with its option ``export``), or :class:`ElementwiseAffine`."""
    if kind not in NORMS:
        raise ConfigError(f"norm: must be one of {', '.join(NORMS)}, got {kind!r}")
    return LayerNorm(width, export=export) if kind == "layer" else ElementwiseAffine(width)
