"""Tables of one row for each entry; encoder, decoder and output may have the same one."""

import numpy as np

from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.export.onnx.part import Part
from fairseq_compress.export.onnx.registry import CHOSEN_BIAS, EMBEDDINGS, Chosen, Embedding, Inputs, register
from fairseq_compress.export.onnx.step import Step

TABLES = ("encoder.embed_tokens", "decoder.embed_tokens")
OUTPUT = "decoder.output_projection"


@register(EMBEDDINGS, "plain")
class PlainEmbedding(Embedding):
    def embed(self, part: Part, tokens: str, scale: float) -> str:
        return rows(part, tokens, scale)

    def logits(self, step: Step, x: str, entries: int) -> str:
        return products(step, x, entries)

    def chosen(self, part: Part, chosen: str, entries: int) -> Chosen:
        return chosen_rows(part, chosen, entries)

    def chosen_logits(self, step: Step, x: str) -> tuple[str, Inputs]:
        return chosen_products(step, x)


def rows(part: Part, tokens: str, scale: float, suffix: str = "") -> str:
    """Rows of the table ``embed_tokens`` + ``suffix`` of a part."""
    own = f"{part.name}.embed_tokens{suffix}"
    name = part.weights.first_equal(own, tuple(table + suffix for table in TABLES))
    return part.tables.rows(part.graph, name or own, tokens, part.weights.table(own), scale)


def products(step: Step, x: str, entries: int, suffix: str = "", inputs: str = "") -> str:
    """Logits: products with the rows of ``output_projection`` + ``suffix``, which may be a table of ``inputs`` too."""
    own, bias = OUTPUT + suffix, behind(step.weights.table(OUTPUT + suffix), entries)
    if f"{own}.bias" in step.weights:
        bias[:entries] = step.weights[f"{own}.bias"][:entries]
    table = _table(step, suffix, inputs)
    product = step.tables.linear if table == own else step.tables.tied_linear
    return product(step.graph, table, x, step.weights.table(own), bias)


def chosen_rows(part: Part, chosen: str, entries: int, suffix: str = "", inputs: str = "") -> Chosen:
    """The ``chosen`` rows of the table of :func:`products`, and the bias there if the output has one."""
    own, name = OUTPUT + suffix, _table(part, suffix, inputs)
    found = part.tables.chosen(part.graph, name, chosen, part.weights.table(own))
    if f"{own}.bias" not in part.weights:
        return found
    bias = part.graph.weight(f"{name}.bias", part.weights[f"{own}.bias"][:entries])
    return found | {CHOSEN_BIAS: (part.graph.node("Gather", bias, chosen), np.float32, ["U"])}


def chosen_products(step: Step, x: str, suffix: str = "", inputs: str = "") -> tuple[str, Inputs]:
    """:func:`products` with chosen rows, without bias."""
    own = OUTPUT + suffix
    return step.tables.chosen_linear(step.graph, _table(step, suffix, inputs), x, step.weights.table(own))


def _table(part: Part, suffix: str, inputs: str) -> str:
    """The name of the table of the output: that of an equal one of the inputs, else its own."""
    own = OUTPUT + suffix
    return part.weights.first_equal(own, tuple(table + (inputs or suffix) for table in TABLES)) or own


def behind(table: Floats, entries: int) -> Floats:
    """A bias ``(V,)``: zero for tokens, -inf for the rows behind them."""
    return np.where(np.arange(len(table)) < entries, 0, -np.inf).astype(np.float32)
