"""A trained transformer -> one whose linear layers, and embeddings if wanted, are products of two smaller matrices."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
from fairseq.models.transformer import TransformerModel
from torch import nn

from fairseq_compress.checkpoint.average import count_parameters
from fairseq_compress.checkpoint.factorize import DenseModel, Names, Shape, read_dense
from fairseq_compress.checkpoint.state import plain_cfg, without_training_state, write_state
from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.functional.layers.low_rank import (
    break_even_rank,
    rank_for_energy,
    ranks_for_size,
    singular_values,
    stored_numbers,
)
from fairseq_compress.models.compressed_transformer import MODEL_NAME, CompressedTransformerModel
from fairseq_compress.modules.factorized_embedding import FactorizedEmbedding
from fairseq_compress.modules.factorized_output import FactorizedOutput
from fairseq_compress.modules.low_rank_linear import LowRankLinear
from fairseq_compress.modules.structured import relative_error, structured_modules
from fairseq_compress.work.files import check_distinct

MODULES = ("*.fc1", "*.fc2", "*_attn.*_proj")
"""Feed-forward networks and the projections of all attentions."""
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class RankChoice:
    """What decides the rank of each layer; one of the three is given.

    Raises:
        ConfigError: none or several are given, or a value is out of range.
    """

    rank: int | None = None
    """The same for all."""
    energy: float | None = None
    """For each the smallest that keeps this part of the sum of its squared singular values, over 0 and at most 1."""
    size: int | None = None
    """Bytes in float32 that all parameters of the model, shared ones once, must not exceed."""

    def __post_init__(self) -> None:
        given = [f"--{name}" for name, value in vars(self).items() if value is not None]
        if len(given) != 1:
            raise ConfigError(f"--rank, --energy, --size: one of them must be given, got {', '.join(given) or 'none'}")
        if self.rank is not None and self.rank < 1:
            raise ConfigError(f"--rank: must be at least 1, got {self.rank}")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise ConfigError(f"--energy: must be over 0 and at most 1, got {self.energy:g}")

    def __str__(self) -> str:
        return next(f"--{name} {value}" for name, value in vars(self).items() if value is not None)


class Layer(NamedTuple):
    """A matrix of the model, before and after."""

    names: Names
    shape: Shape
    rank: int | None
    """None where it stays dense."""
    error: float
    """‖W - Ŵ‖ / ‖W‖ (Frobenius)."""

    @property
    def before(self) -> int:
        """Numbers of the matrix."""
        return self.shape[0] * self.shape[1]

    @property
    def after(self) -> int:
        """Numbers of its factors."""
        return self.before if self.rank is None else stored_numbers(self.rank, *self.shape)


class Factorized(NamedTuple):
    """A factorized checkpoint and what was done."""

    state: dict[str, Any]
    layers: list[Layer]
    """All that were picked, and the embeddings if these were."""
    before: int
    """Parameters of the model, shared ones once."""
    after: int


def factorize(
    path: str | os.PathLike[str], choice: RankChoice, modules: Sequence[str] = MODULES, embedding_rank: int = 0
) -> Factorized:
    """The checkpoint with the truncated SVD of the weights that patterns pick; of quantized weights, of the values x̂.

    A layer whose factors would hold no fewer numbers than its matrix stays dense. The checkpoint's own plan is dropped:
    its patterns are for other modules.

    Args:
        choice: of the ranks.
        modules: patterns of linear layers inside of encoder and decoder layers.
        embedding_rank: of all embeddings, and of the output layer; 0 leaves them as they are.

    Raises:
        CheckpointError: the file cannot be loaded, holds NaN, or is of an architecture without these options.
        ConfigError: it is factorized already; a pattern picks nothing; nothing becomes smaller; the size is too small.
    """
    source = read_dense(path)
    architecture = _architecture(source)
    if embedding_rank and source.convolution:
        raise ConfigError(
            f"--embedding-rank: must not be given for embeddings behind a convolution, which are narrow, got "
            f"{embedding_rank}"
        )
    picked = source.picked(modules)
    for name in source.tables() if embedding_rank else []:
        _check_embedding_rank(embedding_rank, source.shape(name))
    shapes = {names: source.shape(first) for first, names in picked.items()}
    fixed = 0
    if choice.size is not None:
        fixed = _other_parameters(source, architecture, shapes, embedding_rank)
    ranks = _smaller(_ranks(choice, source, shapes, fixed), shapes)
    if not ranks and not embedding_rank:
        raise ConfigError(f"{choice}: no layer would have fewer numbers than it has now")
    model = source.low_rank_model(architecture, ranks, embedding_rank)
    written = {"args": None, "cfg": plain_cfg(source.cfg), "model": model.state_dict()}
    sizes = count_parameters(source.weights), count_parameters(written["model"])
    return Factorized(without_training_state(source.state) | written, _layers(source, model, picked), *sizes)


def write_factorized(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    choice: RankChoice,
    modules: Sequence[str] = MODULES,
    embedding_rank: int = 0,
) -> Factorized:
    """Write :func:`factorize` of ``path`` to ``output``, atomically, and return it.

    Raises:
        ConfigError: the output is the input; or see :func:`factorize`, which has the other errors too.
    """
    check_distinct([path], [output])
    factorized = factorize(path, choice, modules, embedding_rank)
    write_state(factorized.state, output)
    return factorized


def _architecture(source: DenseModel) -> str:
    """Under which name the model is built with low-rank layers."""
    name = getattr(source.cfg.model, "_name", None) or getattr(source.cfg.model, "arch", None)
    model = ARCH_MODEL_REGISTRY.get(name) or MODEL_REGISTRY.get(name)
    if model is TransformerModel:
        return MODEL_NAME
    if model is None or not issubclass(model, CompressedTransformerModel):
        raise CheckpointError(
            f"checkpoint {source.path}: must be of transformer or of one of our architectures, got {name}"
        )
    return str(name)


def _check_embedding_rank(rank: int, shape: Shape) -> None:
    most = break_even_rank(*shape) - 1
    if not 1 <= rank <= most:
        raise ConfigError(f"--embedding-rank: must be from 1 to {most} for {shape[0]} x {shape[1]}, got {rank}")


def _other_parameters(source: DenseModel, architecture: str, shapes: Mapping[Names, Shape], embedding_rank: int) -> int:
    """How many the model has beside the weights of some layers."""
    ranks = _smaller(dict.fromkeys(shapes, 1), shapes)
    smallest = source.low_rank_model(architecture, ranks, embedding_rank, load=False)
    return count_parameters(smallest.state_dict()) - sum(stored_numbers(1, *shape) for shape in shapes.values())


def _ranks(
    choice: RankChoice, source: DenseModel, shapes: Mapping[Names, Shape], other_parameters: int
) -> dict[Names, int]:
    if choice.rank is not None:
        return dict.fromkeys(shapes, choice.rank)
    spectra = {names[0]: singular_values(source.weight(names[0])) for names in shapes}
    if choice.energy is not None:
        return {names: rank_for_energy(spectra[names[0]], choice.energy) for names in shapes}
    assert choice.size is not None  # a choice is one of three
    least = FLOAT32_BYTES * (other_parameters + sum(stored_numbers(1, *shape) for shape in shapes.values()))
    if choice.size < least:
        raise ConfigError(f"--size: must be at least {least} bytes, rank 1 in all layers picked, got {choice.size}")
    budget = choice.size // FLOAT32_BYTES - other_parameters
    ranks = ranks_for_size(spectra, {names[0]: shape for names, shape in shapes.items()}, budget)
    return {names: ranks[names[0]] for names in shapes}


def _smaller(ranks: Mapping[Names, int], shapes: Mapping[Names, Shape]) -> dict[Names, int]:
    return {names: rank for names, rank in ranks.items() if rank < break_even_rank(*shapes[names])}


def _layers(source: DenseModel, model: nn.Module, picked: Mapping[str, Names]) -> list[Layer]:
    """In the model's order."""
    structured = structured_modules(model)
    layers = []
    for names in source.groups():
        module, weight = structured.get(names[0]), source.weight(names[0])
        if isinstance(module, (LowRankLinear, FactorizedEmbedding, FactorizedOutput)):
            layers.append(Layer(names, source.shape(names[0]), module.rank, relative_error(module, weight)))
        elif names[0] in picked:
            layers.append(Layer(names, source.shape(names[0]), None, 0.0))
    return layers
