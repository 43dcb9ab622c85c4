"""Where the forms of :mod:`fairseq_compress.export.onnx.forms` register, by their kind in the architecture."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from fairseq_compress.export.onnx.part import Part
    from fairseq_compress.export.onnx.step import Step

Made = TypeVar("Made")
Inputs = dict[str, tuple[Any, list[Any]]]
"""Name -> dtype and shape of inputs of a graph."""
Chosen = dict[str, tuple[str, Any, list[Any]]]
"""Name -> tensor, dtype and shape of what a graph returns of chosen rows (``export/onnx/shortlist.py``)."""
CHOSEN_ROWS, ROW_SCALES, CHOSEN_BIAS = "rows", "row_scales", "chosen_bias"

LINEAR: dict[str, "Callable[[Part, str, str], str]"] = {}
"""Form of a matrix -> (part, x, name) to ``x Wᵀ + b``, ``(N, I)`` to ``(N, O)``. Without an entry: one dense matrix."""
UNITS: dict[str, "Callable[[Step, int, str], str]"] = {}
"""Kind of self-attention in the decoder -> (step, number of the layer, x) to its output, ``(N, C)`` both."""
LAYERS: dict[str, "Callable[[Part, int, str], str]"] = {}
"""Kind of layer -> (part, its number, x) to its output, ``(N, C)`` both."""
EMBEDDINGS: dict[str, Any] = {}
"""Kind of embeddings -> a module's :class:`Embedding`."""


class Embedding:
    """The tables of a model in one form."""

    def embed(self, part: "Part", tokens: str, scale: float) -> str:
        """Embeddings ``(B, N, E)`` of ``tokens (B, N)``, times ``scale``."""
        raise NotImplementedError

    def logits(self, step: "Step", x: str, entries: int) -> str:
        """Logits ``(N, V)`` of features ``(N, C)``; V is at least ``entries``, and those behind them are -inf."""
        raise NotImplementedError

    def chosen(self, part: "Part", chosen: str, entries: int) -> Chosen:
        """The rows ``chosen (U,)`` of the output and its bias there: name -> tensor, dtype and shape."""
        raise NotImplementedError

    def chosen_logits(self, step: "Step", x: str) -> tuple[str, Inputs]:
        """Products ``(N', U)``, N' at least N, of features ``(N, C)`` with the chosen rows, and the inputs for them."""
        raise NotImplementedError


def register(forms: dict[str, Any], kind: str) -> Callable[[Made], Made]:
    """The form of a kind; an embedding is registered as a class and used as an object."""

    def decorate(form: Made) -> Made:
        assert kind not in forms, f"two forms of the kind {kind}"
        forms[kind] = form() if isinstance(form, type) else form
        return form

    return decorate
