"""Calibration: the ranges of the inputs of all linear layers while a model decodes a text."""

import tempfile
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_compress.checkpoint.materialize import Materialized
from fairseq_compress.corpus.segmentation.segmenter import Segmenter
from fairseq_compress.decoding.beam_search import Floats
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import DataError
from fairseq_compress.export import onnx_format
from fairseq_compress.export.onnx.forms.plain_embedding import OUTPUT, TABLES
from fairseq_compress.export.onnx_graph import GraphBuilder
from fairseq_compress.export.onnx_linear import Float32, Range
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.onnx.model import OnnxModel
from fairseq_compress.teachers.loading import LoadedModels
from fairseq_compress.work.files import PathLike, read_lines

SENTENCES = 500
PREFIX = "range of "


class _Observed(Float32):
    """In float32, with the least and greatest input of every linear layer as an additional output, ``(2,)``."""

    def linear(self, graph: GraphBuilder, name: str, x: str, weight: Floats, bias: Floats | None) -> str:
        extremes = [
            graph.node("Reshape", graph.node(operator, x, keepdims=0), graph.integers(1))
            for operator in ("ReduceMin", "ReduceMax")
        ]
        graph.watch(PREFIX + name, graph.node("Concat", *extremes, axis=0), [2])
        return super().linear(graph, name, x, weight, bias)


class _ObservedSession:
    """A session of such a graph that records the extremes and returns the other outputs."""

    def __init__(self, session: Any, ranges: dict[str, Range]) -> None:
        self._session, self._ranges = session, ranges
        self._names = [each.name for each in session.get_outputs()]
        self._watched = {name: np.empty(2, np.float32) for name in self._names if name.startswith(PREFIX)}

    def run(self, names: None, feeds: dict[str, Any]) -> list[Any]:
        outputs = dict(zip(self._names, self._session.run(names, feeds), strict=True))
        self._record({name: outputs.pop(name) for name in self._watched})
        return list(outputs.values())

    def io_binding(self) -> Any:
        binding = self._session.io_binding()
        for name, array in self._watched.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return binding

    def run_with_iobinding(self, binding: Any) -> None:
        self._session.run_with_iobinding(binding)
        self._record(self._watched)

    def _record(self, extremes: dict[str, Any]) -> None:
        for name, (low, high) in extremes.items():
            key = name.removeprefix(PREFIX)
            least, greatest = self._ranges.get(key, (0.0, 0.0))
            self._ranges[key] = (min(least, float(low)), max(greatest, float(high)))


class _ObservedModel(OnnxModel):
    """An exported model that records the ranges."""

    def __init__(self, directory: ModelDirectory, options: SearchOptions) -> None:
        super().__init__(directory, options, threads=1)
        self.ranges: dict[str, Range] = {}

    def _open(self, threads: int, *names: str) -> list[Any]:
        return [_ObservedSession(session, self.ranges) for session in super()._open(threads, *names)]


class _Named(Float32):
    """Records the names of the linear layers."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def linear(self, graph: GraphBuilder, name: str, x: str, weight: Floats, bias: Floats | None) -> str:
        self.names[name] = None
        return super().linear(graph, name, x, weight, bias)


def quantized_inputs(plain: Materialized, models: LoadedModels) -> list[str]:
    """The linear layers in the graphs of a model."""
    named = _Named()
    with tempfile.TemporaryDirectory() as name:
        both = models.source, models.target
        onnx_format.write_graphs(Path(name), plain.model, plain.values, *both, named, searches=False)
    return list(named.names)


def learned_ranges(largest: dict[str, float]) -> dict[str, Range]:
    """Symmetric ranges by layer name in the graphs, from the largest input magnitude of each linear layer."""
    found = {name: (-value, value) for name, value in largest.items()}
    outputs = [name for name in found if name.startswith(OUTPUT)]
    for output in outputs:  # in the graphs the table that it shares has the name
        found |= dict.fromkeys((table + output.removeprefix(OUTPUT) for table in TABLES), found[output])
        if output == OUTPUT:
            found |= dict.fromkeys((f"{table}.table" for table in TABLES), found[output])
    return found


def first_sentences(models: LoadedModels, segmenter: Segmenter, text: PathLike) -> list[list[str]]:
    """The subwords of the first sentences of a raw text, cut where they are too long for the model."""
    lines = [line for line in islice(read_lines(text), SENTENCES) if line.strip()]
    most = models.max_source_positions - 1
    sentences = [cut for sentence in segmenter.encode(lines) if (cut := sentence.split()[:most])]
    if not sentences:
        raise DataError(f"{text}: must have text, has none in its first {SENTENCES} lines")
    return sentences


def find_ranges(
    plain: Materialized, models: LoadedModels, segmenter: Segmenter, text: PathLike, options: SearchOptions
) -> dict[str, Range]:
    """The least and greatest input of each linear layer while the first sentences of a raw text are translated."""
    sentences = first_sentences(models, segmenter, text)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        both = models.source, models.target
        own = onnx_format.write_graphs(folder, plain.model, plain.values, *both, _Observed(), searches=False)
        positions = {"source": models.max_source_positions, "target": models.max_target_positions}
        model = _ObservedModel(ModelDirectory(folder, {"onnx": own, "positions": positions}), options)
        for _, equal in groupby(sorted(sentences, key=len), key=len):  # padding would count in the ranges
            model.translate(list(equal))
    return model.ranges
