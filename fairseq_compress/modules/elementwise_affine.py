"""A norm that measures nothing: MobileBERT's NoNorm."""

import torch
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError


class ElementwiseAffine(nn.Module):
    r"""A gain and a shift for each feature, in place of layer normalization: NoNorm of MobileBERT (arXiv:2004.02984).

    .. math:: y = \gamma \odot h + \beta

    It has no statistics of its input to wait for, and at inference it can be folded into the linear map after it.
    Its parameters have the names of a layer norm's, and start as one does: γ (``weight``) is 1 and β (``bias``) 0.

    Args:
        width: C, the size of γ and β.

    Raises:
        ConfigError: ``width`` is below 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(f"width: must be at least 1, got {width}")
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Of the shape of ``hidden`` (..., C).

        Raises:
            ConfigError: ``hidden`` has another width.
        """
        if hidden.size(-1) != self.weight.size(0):  # one of width 1 would be spread over all features
            raise ConfigError(f"hidden: must have {self.weight.size(0)} features, got {hidden.size(-1)}")
        return hidden * self.weight + self.bias

    def extra_repr(self) -> str:
        return f"{self.weight.size(0)}"
