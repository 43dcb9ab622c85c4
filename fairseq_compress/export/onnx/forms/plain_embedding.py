"""Tables of one row for each entry; encoder, decoder and output may have the same one."""

import numpy as np

from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.export.onnx.part import Part
from fairseq_compress.export.onnx.registry import EMBEDDINGS, Embedding, register
from fairseq_compress.export.onnx.step import Step

TABLES = ("encoder.embed_tokens", "decoder.embed_tokens")
OUTPUT = "decoder.output_projection"


@register(EMBEDDINGS, "plain")
class PlainEmbedding(Embedding):
    def embed(self, part: Part, tokens: str, scale: float) -> str:
        return rows(part, tokens, scale)

    def logits(self, step: Step, x: str, entries: int) -> str:
        return products(step, x, entries)


def rows(part: Part, tokens: str, scale: float, suffix: str = "") -> str:
    """Rows of the table ``embed_tokens`` + ``suffix`` of a part."""
    own = f"{part.name}.embed_tokens{suffix}"
    name = part.weights.first_equal(own, tuple(table + suffix for table in TABLES))
    return part.precision.rows(part.graph, name or own, tokens, part.weights.table(own), scale)


def products(step: Step, x: str, entries: int, suffix: str = "", inputs: str = "") -> str:
    """Logits: products with the rows of ``output_projection`` + ``suffix``, which may be a table of ``inputs`` too."""
    own, bias = OUTPUT + suffix, behind(step.weights.table(OUTPUT + suffix), entries)
    if f"{own}.bias" in step.weights:
        bias[:entries] = step.weights[f"{own}.bias"][:entries]
    table = step.weights.first_equal(own, tuple(table + (inputs or suffix) for table in TABLES))
    product = step.precision.linear if table is None else step.precision.tied_linear
    return product(step.graph, table or own, x, step.weights.table(own), bias)


def behind(table: Floats, entries: int) -> Floats:
    """A bias ``(V,)``: zero for tokens, -inf for the rows behind them."""
    return np.where(np.arange(len(table)) < entries, 0, -np.inf).astype(np.float32)
