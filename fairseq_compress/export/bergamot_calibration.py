"""Calibration of alphas: the range of each linear layer's input that loses least in 8 bits."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.marian_names import OUTPUT, linear_layers
from fairseq_compress.checkpoint.materialize import Materialized
from fairseq_compress.corpus.segmentation.segmenter import Segmenter
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.export.calibration import first_sentences
from fairseq_compress.export.onnx_linear import Range
from fairseq_compress.runtimes.torch.model import TorchModel
from fairseq_compress.teachers.loading import LoadedModels
from fairseq_compress.work.files import PathLike

BINS = 2048
STEPS = 100  # candidates for a range, from 1/4 of the largest value to all of it
LEVELS = 127


@torch.inference_mode()
def find_ranges(
    plain: Materialized, models: LoadedModels, segmenter: Segmenter, text: PathLike, options: SearchOptions
) -> dict[str, Range]:
    """Symmetric ranges by layer name, from the model's own translations of the first sentences of a raw text.

    The range c minimizes the mean squared error of x in 127 steps up to c, where larger values become c.
    """
    pairs = list(_pairs(models, segmenter, text, options))
    largest: dict[str, float] = {}

    def widen(name: str, x: Tensor) -> None:
        largest[name] = max(largest.get(name, 0.0), float(x.abs().max()))

    _run(plain.model, pairs, widen)
    counts = {name: torch.zeros(BINS, dtype=torch.float64) for name in largest}

    def count(name: str, x: Tensor) -> None:
        counts[name] += torch.histc(x.abs().float(), BINS, 0, max(largest[name], 1e-30))

    _run(plain.model, pairs, count)
    best = {name: best_range(counts[name], largest[name]) for name in largest}
    return {name: (-value, value) for name, value in best.items()}


def quantized_inputs(plain: Materialized, models: LoadedModels) -> list[str]:
    """The linear layers of a model in Marian's format, the output layer included."""
    architecture = architecture_of(argparse.Namespace(**plain.values))
    return [*(linear.ours for linear in linear_layers(architecture)), OUTPUT]


def learned_ranges(largest: dict[str, float]) -> dict[str, Range]:
    """Symmetric ranges by layer name, from the largest input magnitude of each linear layer."""
    return {name: (-value, value) for name, value in largest.items()}


def best_range(counts: Tensor, largest: float) -> float:
    """The best range for values |x| with a histogram ``counts`` (bins,) over [0, largest]."""
    middles = (torch.arange(len(counts), dtype=torch.float64) + 0.5) * (largest / len(counts))
    candidates = torch.linspace(0.25, 1, STEPS, dtype=torch.float64) * largest
    errors = [
        float((counts * torch.where(middles <= c, (c / LEVELS) ** 2 / 12, (middles - c) ** 2)).sum())
        for c in candidates
    ]
    return float(candidates[min(range(STEPS), key=errors.__getitem__)])


def _pairs(
    models: LoadedModels, segmenter: Segmenter, text: PathLike, options: SearchOptions
) -> Iterator[tuple[list[int], list[int]]]:
    sentences = first_sentences(models, segmenter, text)
    found = TorchModel(models, options).translate(sentences)
    for sentence, hypotheses in zip(sentences, found, strict=True):
        source = [models.source.index(piece) for piece in sentence]
        target = [models.target.index(piece) for piece in hypotheses[0][1]]
        yield [*source, models.source.eos()], [models.target.eos(), *target]


def _run(model: Any, pairs: Sequence[tuple[list[int], list[int]]], watch: Any) -> None:
    """Teacher-forced forward passes, sentence by sentence: padding would count."""
    with _watched(model, watch):
        for source, target in pairs:
            model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([target]))


@contextmanager
def _watched(model: nn.Module, watch: Any) -> Iterator[None]:
    handles = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: watch(name, inputs[0]))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
