"""Parts of layers with bottlenecks: the way into the inner stream and out of it, and what is stacked inside."""

from typing import Any

from fairseq import utils
from fairseq.modules import FairseqDropout, LayerNorm
from torch import Tensor, nn

from fairseq_compress.architecture.shape import NORMS
from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.axes import FFN, INNER, Declaration
from fairseq_compress.modules.elementwise_affine import ElementwiseAffine


class Bottleneck(nn.Module):
    r"""A linear map between the stream that layers pass on and the one inside of it (MobileBERT, arXiv:2004.02984).

    On the way in :math:`y = norm(W h + b)`; on the way out, where the outer stream r goes on past the layer,
    :math:`y = norm(r + dropout(W h + b))`.

    Args:
        in_features: C, width of h.
        out_features: D, width of y and r.
        norm: of width D.
        dropout: on the way out.
    """

    def __init__(self, in_features: int, out_features: int, norm: nn.Module, dropout: nn.Module | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.dropout_module = dropout
        self.norm = norm

    def forward(self, hidden: Tensor, residual: Tensor | None = None) -> Tensor:
        """(..., D) from ``hidden`` (..., C) and, on the way out, ``residual`` (..., D)."""
        projected: Tensor = self.linear(hidden)
        if self.dropout_module is not None:
            projected = self.dropout_module(projected)
        if residual is not None:
            projected = residual + projected
        normed: Tensor = self.norm(projected)
        return normed


class ResidualFeedForward(nn.Module):
    r"""A feed-forward network with its residual and its norm (MobileBERT, arXiv:2004.02984).

    .. math:: y = norm(h + W_2\, dropout(activation(W_1 h + b_1)) + b_2)

    Args:
        width: C, of h and y.
        inner_width: rows of W₁.
        cfg: fairseq's configuration, for the activation and its dropout.
        norm: of width C.
        layer_name: the class that ``--retain-dropout-modules`` knows the dropout by.
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
        """Of both matrices and the norm."""
        return {"fc1": (FFN, INNER), "fc2": (INNER, FFN), "norm": (INNER,)}

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        inner = self.activation_dropout_module(self.activation_fn(self.fc1(hidden)))
        output: Tensor = self.norm(hidden + self.fc2(inner))
        return output


def make_norm(kind: str, width: int, export: bool = False) -> nn.Module:
    """fairseq's layer norm, or the one without statistics.

    Args:
        kind: one of :data:`~fairseq_compress.architecture.shape.NORMS`.
        width: C.
        export: fairseq's option of this name, for layer norms.

    Raises:
        ConfigError: the kind is unknown.
    """
    if kind not in NORMS:
        raise ConfigError(f"norm: must be one of {', '.join(NORMS)}, got {kind!r}")
    norm: nn.Module = LayerNorm(width, export=export) if kind == "layer" else ElementwiseAffine(width)
    return norm
