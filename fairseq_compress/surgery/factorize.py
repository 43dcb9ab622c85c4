"""Ranks of the matrices of a trained model, and the architecture with low-rank matrices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from fairseq_compress.architecture.shape import Architecture, Embeddings, Layer, Matrix
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layers.low_rank import (
    break_even_rank,
    rank_for_energy,
    ranks_for_size,
    singular_values,
    stored_numbers,
)
from fairseq_compress.modules.axes import ENTRIES, parameter_axes
from fairseq_compress.selection import select
from fairseq_compress.weights.groups import weight_groups

MODULES = ("*.fc1", "*.fc2", "*_attn.*_proj")
"""Feed-forward networks and the projections of all attentions."""
FLOAT32_BYTES = 4
LAYERS = ".layers."

Names = tuple[str, ...]
"""Of all modules that share a weight."""
Ranks = dict[Names, int | None]
"""None for a matrix that stays dense."""


@dataclass(frozen=True)
class RankChoice:
    """The rule for the rank of each layer; exactly one is given."""

    rank: int | None = None
    """The same for all."""
    energy: float | None = None
    """For each the smallest that keeps this part of the sum of its squared singular values, in (0, 1]."""
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


def choose_ranks(
    model: nn.Module, weights: Mapping[str, Tensor], choice: RankChoice, patterns: Sequence[str], embedding_rank: int,
    parameters: int,
) -> Ranks:  # fmt: skip
    """The rank of each matrix that patterns pick, and of the tables, in the model's order.

    A layer whose factors would hold no fewer numbers than its matrix stays dense.

    Args:
        weights: effective weights of the dense model.
        patterns: of linear layers inside of encoder and decoder layers.
        embedding_rank: of all embeddings and the output layer; 0 for dense ones.
        parameters: number of the model, shared ones once.
    """
    groups = [(tuple(group.modules), list(group.modules.values())) for group in weight_groups(model)]
    inside: dict[str, Names] = {}
    for names, modules in groups:
        if all(isinstance(module, nn.Linear) for module in modules) and all(LAYERS in name for name in names):
            inside |= dict.fromkeys(names, names)
    picked = {inside[name]: None for name in select(inside, patterns, "--modules")}
    axes = parameter_axes(model)
    tables = [names for names, _ in groups if embedding_rank and ENTRIES in axes.get(names[0], ())]
    shapes = {names: _shape(weights, names) for names, _ in groups if names in picked or names in tables}
    for names in tables:
        most = break_even_rank(*shapes[names]) - 1
        if not 1 <= embedding_rank <= most:
            size = f"{shapes[names][0]} x {shapes[names][1]}"
            raise ConfigError(f"--embedding-rank: must be from 1 to {most} for {size}, got {embedding_rank}")
    found = _ranks(choice, weights, {names: shapes[names] for names in picked}, parameters - sum(
        rows * columns - (stored_numbers(embedding_rank, rows, columns) if names in tables else 0)
        for names, (rows, columns) in shapes.items()
    ))  # fmt: skip
    smaller = {names: rank for names, rank in found.items() if rank < break_even_rank(*shapes[names])}
    if not smaller and not embedding_rank:
        raise ConfigError(f"{choice}: no layer would have fewer numbers than it has now")
    return {names: embedding_rank if names in tables else smaller.get(names) for names in shapes}


def with_ranks(architecture: Architecture, ranks: Ranks) -> Architecture:
    """The architecture with low-rank layers, and factorized embeddings if the ranks name a table."""
    by_name = {name: rank for names, rank in ranks.items() if rank is not None for name in names}

    def factorized(part: str, number: int, layer: Layer) -> Layer:
        names = {name: f"{part}{LAYERS}{number}.{name}" for name in architecture.linear_shapes(part, layer)}
        low = tuple(Matrix(name, by_name[full]) for name, full in names.items() if full in by_name)
        return replace(layer, matrices=layer.matrices + low)

    made = architecture.map_layers(factorized)
    of_tables = {rank for name, rank in by_name.items() if LAYERS not in name}
    if of_tables:
        made = replace(made, embeddings=Embeddings("factorized", of_tables.pop(), tying=made.embeddings.tying))
    return made


def _shape(weights: Mapping[str, Tensor], names: Names) -> tuple[int, int]:
    rows, columns = weights[f"{names[0]}.weight"].shape
    return rows, columns


def _ranks(
    choice: RankChoice, weights: Mapping[str, Tensor], shapes: Mapping[Names, tuple[int, int]], others: int
) -> dict[Names, int]:
    """The rank of each matrix, in a model with ``others`` other parameters."""
    if choice.rank is not None:
        return dict.fromkeys(shapes, choice.rank)
    spectra = {names[0]: singular_values(weights[f"{names[0]}.weight"]) for names in shapes}
    if choice.energy is not None:
        return {names: rank_for_energy(spectra[names[0]], choice.energy) for names in shapes}
    assert choice.size is not None
    least = FLOAT32_BYTES * (others + sum(stored_numbers(1, *shape) for shape in shapes.values()))
    if choice.size < least:
        raise ConfigError(f"--size: must be at least {least} bytes, rank 1 in all layers picked, got {choice.size}")
    budget = choice.size // FLOAT32_BYTES - others
    ranks = ranks_for_size(spectra, {names[0]: shape for names, shape in shapes.items()}, budget)
    return {names: ranks[names[0]] for names in shapes}
