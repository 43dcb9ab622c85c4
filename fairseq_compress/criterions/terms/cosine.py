"""The cosine of the last hidden states."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fairseq_compress.compat import fairseq_options
from fairseq_compress.criterions.terms.layers import Fit, LayerTerm, TransferOptions
from fairseq_compress.criterions.terms.term import Batch
from fairseq_compress.functional.layer_map import PARTS, Moment
from fairseq_compress.functional.losses.layer_losses import cosine_loss, unpadded
from fairseq_compress.options import option


@fairseq_options
class CosineOptions(TransferOptions):
    """Options of :class:`Cosine`."""

    cosine_weight: float = option(
        0.0, "weight of the cosine loss of the last hidden states of encoder and decoder", range="[0, inf)"
    )


class Cosine(LayerTerm):
    """1 - cos of the last hidden states, the mean of encoder and decoder (arXiv:1910.01108)."""

    name = "cosine"
    options = CosineOptions
    at_output = True

    def widths(self, fit: Fit) -> Mapping[str, tuple[int, int]]:
        return {f"{part}_last": (fit.student.last[part], fit.teacher.last[part]) for part in PARTS}

    def sites(self, side: str, seen: Moment) -> dict[str, Any]:
        return {"last": seen.output}

    def values(self, batch: Batch) -> list[Tensor]:
        found = []
        for part in PARTS if batch.student.last else ():
            own, other = (unpadded(each.last[part], batch.padding[part]) for each in (batch.student, batch.teacher))
            found.append(cosine_loss(self.maps(f"{part}_last", own), other) / len(PARTS))
        return found
