"""The rules of a compression plan, as dataclasses. docs/quantization.md explains every key."""

from dataclasses import dataclass, field
from functools import partial

import torch

from fairseq_compress.functional.quantization import codebooks
from fairseq_compress.functional.quantization import product as product_quantization
from fairseq_compress.functional.quantization.codes import Codes, make_codes
from fairseq_compress.functional.quantization.linear import BITS, Linear
from fairseq_compress.functional.quantization.rotation import default_rotation_size
from fairseq_compress.functional.schedules import Ramp
from fairseq_compress.weights.methods.block_dropout import BlockDropout
from fairseq_compress.weights.methods.codebook import DTYPES, Codebook, Quantize
from fairseq_compress.weights.methods.linear import LinearQuantizer
from fairseq_compress.weights.transform import WeightTransform


@dataclass(frozen=True)
class Noise:
    """The share of the blocks of a weight that a training forward draws: a line over the updates."""

    start: float = 1.0
    end: float | None = None
    """None: as at the start."""
    first_update: int = 0
    last_update: int = 0
    block: int = 8
    """Neighbouring entries of a row that are drawn together."""

    def problems(self) -> list[str]:
        """What breaks a rule."""
        found = []
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None and not 0 <= value <= 1:
                found.append(f"{name}: must be from 0 to 1, got {value:g}")
        if not 0 <= self.first_update <= self.last_update:
            last = f"last_update ({self.last_update})"
            found.append(f"first_update: must be from 0 to {last}, got {self.first_update}")
        if self.block < 1:
            found.append(f"block: must be at least 1, got {self.block}")
        return found

    def ramp(self) -> Ramp:
        """The share by updates."""
        return Ramp(self.start, self.start if self.end is None else self.end, self.first_update, self.last_update)


@dataclass(frozen=True)
class WeightRule:
    """How the weights of some modules are compressed."""

    modules: tuple[str, ...]
    """Patterns of names (:func:`fairseq_compress.selection.select`)."""
    method: str = "linear"
    stage: int = field(default=1, kw_only=True)
    """In which it begins (:mod:`fairseq_compress.procedures.stages`)."""

    def problems(self) -> list[str]:
        """What breaks a rule, whatever the model."""
        return _stage_problems(self.stage)

    def transform(self, rows: int, columns: int) -> WeightTransform:
        """A new transform of a weight ``(R, C)`` that is still to be loaded.

        Raises:
            ValueError: the rule does not fit the weight.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class LinearRule(WeightRule):
    """Integers and scales: quantization-aware training, quant-noise, or nothing but rounding."""

    bits: int = 8
    granularity: str = "row"
    group_size: int = 0
    noise: Noise = field(default_factory=Noise)

    def problems(self) -> list[str]:
        try:
            self._how().check((1, max(self.group_size, 1)))
        except ValueError as error:
            return [*super().problems(), str(error)]
        return super().problems()

    def transform(self, rows: int, columns: int) -> WeightTransform:
        self._how().check((rows, columns))
        return LinearQuantizer(self._how(), self.noise.ramp(), self.noise.block)

    def _how(self) -> Linear:
        return Linear(self.bits, self.granularity, self.group_size)


@dataclass(frozen=True)
class BlockDropoutRule(WeightRule):
    """Quant-noise for a product quantization to come."""

    noise: Noise = field(default_factory=Noise)

    def problems(self) -> list[str]:
        found = super().problems()
        if max(self.noise.ramp()[:2]) == 1:
            found.append("noise.start: must be less than 1 with block_dropout, got 1")
        return found

    def transform(self, rows: int, columns: int) -> WeightTransform:
        return BlockDropout(self.noise.ramp(), self.noise.block)


@dataclass(frozen=True)
class CodesRule(WeightRule):
    """Shared centroids."""

    block: int = 1
    """Neighbouring entries of a row that are looked up together."""
    centroid_bits: int = 16
    """16: float16; 8: int8."""
    seed: int = 1

    def problems(self) -> list[str]:
        found = super().problems()
        if self.block < 1:
            found.append(f"block: must be at least 1, got {self.block}")
        if self.centroid_bits not in DTYPES:
            found.append(f"centroid_bits: must be 8 or 16, got {self.centroid_bits}")
        return found

    def transform(self, rows: int, columns: int) -> WeightTransform:
        if columns % self.block:
            raise ValueError(f"block: must divide the {columns} columns, got {self.block}")
        return Codebook(self._empty(rows, columns), self.quantize(), self.centroid_bits)

    def quantize(self) -> Quantize:
        """A matrix to codes."""
        raise NotImplementedError

    def sizes(self) -> tuple[int, int]:
        """Codebooks, and centroids in each."""
        raise NotImplementedError

    def rotation_size(self, rows: int, columns: int) -> int:
        """Columns that are rotated together; 0 for none."""
        return 0

    def _empty(self, rows: int, columns: int) -> Codes:
        books, entries = self.sizes()
        size = self.rotation_size(rows, columns)
        assignments = torch.zeros(rows * (columns // self.block), books, dtype=torch.int64)
        rotation = torch.eye(size) if size else None
        return make_codes(torch.zeros(books, entries, self.block), assignments, (rows, columns), rotation)


@dataclass(frozen=True)
class ProductRule(CodesRule):
    """Product quantization with faiss."""

    block: int = 8
    centroids: int = 256
    algorithm: str = "kmeans"
    codebooks: int = 0
    """Of residual and lsq; 0: 2 of these, 1 of the others."""

    def problems(self) -> list[str]:
        known, found = product_quantization.METHODS, super().problems()
        if self.algorithm not in known:
            found.append(f"algorithm: must be one of {', '.join(known)}, got {self.algorithm!r}")
        if not 2 <= self.centroids <= product_quantization.MOST_CENTROIDS:
            most = product_quantization.MOST_CENTROIDS
            found.append(f"centroids: must be from 2 to {most}, got {self.centroids}")
        if self.codebooks < 0 or (self.codebooks > 1 and self.algorithm in ("kmeans", "opq")):
            found.append(f"codebooks: must be 1 with {self.algorithm}, got {self.codebooks}")
        return found

    def transform(self, rows: int, columns: int) -> WeightTransform:
        made, blocks = super().transform(rows, columns), rows * (columns // self.block)
        if self.centroids > blocks:
            raise ValueError(f"centroids: must be at most the {blocks:,} blocks of the matrix, got {self.centroids}")
        return made

    def quantize(self) -> Quantize:
        return partial(
            product_quantization.product_quantize, block=self.block, centroids=self.centroids, method=self.algorithm,
            codebooks=self.codebooks or None, seed=self.seed,
        )  # fmt: skip

    def sizes(self) -> tuple[int, int]:
        return self.codebooks or (2 if self.algorithm in ("residual", "lsq") else 1), self.centroids

    def rotation_size(self, rows: int, columns: int) -> int:
        return default_rotation_size(rows, columns, self.block) if self.algorithm == "opq" else 0


@dataclass(frozen=True)
class CodebookRule(CodesRule):
    """A codebook of 2^bits entries for the single weights of a matrix, or for short blocks."""

    bits: int = 4
    algorithm: str = "kmeans"

    def problems(self) -> list[str]:
        found = super().problems()
        if self.algorithm not in ("kmeans", "percentile"):
            found.append(f"algorithm: must be one of kmeans, percentile, got {self.algorithm!r}")
        if self.bits not in codebooks.BITS:
            found.append(f"bits: must be from {codebooks.BITS[0]} to {codebooks.BITS[-1]}, got {self.bits}")
        if self.block > 1 and self.algorithm == "percentile":
            found.append(f"block: must be 1 with percentile, got {self.block}")
        return found

    def quantize(self) -> Quantize:
        if self.algorithm == "percentile":
            return partial(codebooks.percentile_codebook, bits=self.bits)
        return partial(codebooks.kmeans_codebook, bits=self.bits, block=self.block, seed=self.seed)

    def sizes(self) -> tuple[int, int]:
        return 1, 2**self.bits


METHODS: dict[str, type[WeightRule]] = {
    "linear": LinearRule,
    "block_dropout": BlockDropoutRule,
    "product": ProductRule,
    "codebook": CodebookRule,
}


@dataclass(frozen=True)
class ActivationRule:
    """How the inputs of some linear layers are quantized."""

    modules: tuple[str, ...]
    bits: int = 8
    decay: float = 0.9999
    """Of the moving average of their range."""
    stage: int = field(default=1, kw_only=True)
    """As of a weight's rule."""

    def problems(self) -> list[str]:
        """What breaks a rule, whatever the model."""
        found = _stage_problems(self.stage)
        if self.bits not in BITS:
            found.append(f"bits: must be from {BITS[0]} to {BITS[-1]}, got {self.bits}")
        return found if 0 <= self.decay < 1 else [*found, f"decay: must be from 0 to less than 1, got {self.decay:g}"]


@dataclass(frozen=True)
class Plan:
    """A compression plan."""

    weights: tuple[WeightRule, ...] = ()
    activations: tuple[ActivationRule, ...] = ()

    def stages(self) -> list[int]:
        """Numbers of the stages, in their order."""
        return sorted({rule.stage for rule in self.weights} | {rule.stage for rule in self.activations})

    def until(self, stage: int) -> "Plan":
        """The rules that have begun in a stage."""
        return Plan(
            tuple(rule for rule in self.weights if rule.stage <= stage),
            tuple(rule for rule in self.activations if rule.stage <= stage),
        )


def _stage_problems(stage: int) -> list[str]:
    return [] if stage >= 1 else [f"stage: must be at least 1, got {stage}"]
