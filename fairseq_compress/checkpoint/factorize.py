"""A checkpoint whose linear layers, and embeddings if wanted, are products of two smaller matrices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
from fairseq.models.transformer import TransformerModel

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.checkpoint.average import checked_weights, count_parameters
from fairseq_compress.checkpoint.load import build_model, load_model
from fairseq_compress.checkpoint.state import plain_cfg, set_architecture, with_model, write_converted
from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.functional.layers.low_rank import stored_numbers
from fairseq_compress.modules.activation_quantizer import remove_quantizers
from fairseq_compress.modules.structured import relative_error, structured_modules
from fairseq_compress.surgery.factorize import MODULES, Names, RankChoice, choose_ranks, with_ranks
from fairseq_compress.weights.groups import effective_state
from fairseq_compress.weights.reading import set_options, set_plan
from fairseq_compress.weights.rules import Plan
from fairseq_compress.work.files import PathLike

OURS = "compressed_transformer"


class FactorizedMatrix(NamedTuple):
    """A matrix of the model, before and after."""

    names: Names
    shape: tuple[int, int]
    rank: int | None
    """None for a dense matrix."""
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
    """A factorized checkpoint, its selected matrices, and numbers of parameters, shared ones once."""

    state: dict[str, Any]
    layers: list[FactorizedMatrix]
    before: int
    after: int


def factorize(
    path: PathLike, choice: RankChoice, modules: Sequence[str] = MODULES, embedding_rank: int = 0
) -> Factorized:
    """The checkpoint with the truncated SVD of the weights that patterns pick; of quantized weights, of the values x̂.

    The checkpoint's plan is dropped. Arguments are those of :func:`~fairseq_compress.surgery.factorize.choose_ranks`.
    """
    _, state, cfg, dictionaries, model = load_model(path)
    structured = [f"{name} is a {type(module).__name__}" for name, module in structured_modules(model).items()]
    if structured:
        raise ConfigError(f"--checkpoint {path}: must have dense layers, got a model in which {structured[0]}")
    remove_quantizers(model)
    weights = checked_weights(effective_state(model), Path(path))
    name, architecture = _model_name(path, cfg.model), architecture_of(cfg.model)
    if embedding_rank and architecture.embeddings.kind == "convolutional":
        raise ConfigError(
            f"--embedding-rank: must not be given for embeddings behind a convolution, which are narrow, got "
            f"{embedding_rank}"
        )
    before = count_parameters(weights)
    ranks = choose_ranks(model, weights, choice, modules, embedding_rank, before)
    set_plan(cfg.model, Plan())
    set_options(cfg.model, {"_name": name, "arch": name})
    set_architecture(cfg.model, with_ranks(architecture, ranks))
    smaller = build_model(path, {"model": weights}, cfg, *dictionaries)
    low_rank = structured_modules(smaller)
    layers = []
    for names, rank in ranks.items():
        weight = weights[f"{names[0]}.weight"]
        error = relative_error(low_rank[names[0]], weight) if rank is not None else 0.0
        layers.append(FactorizedMatrix(names, (weight.size(0), weight.size(1)), rank, error))
    written = smaller.state_dict()
    return Factorized(with_model(state, plain_cfg(cfg), written), layers, before, count_parameters(written))


def write_factorized(
    path: PathLike, output: PathLike, choice: RankChoice, modules: Sequence[str] = MODULES, embedding_rank: int = 0
) -> Factorized:
    """Write :func:`factorize` of ``path`` to ``output`` and return it."""
    return write_converted([path], output, lambda: factorize(path, choice, modules, embedding_rank))


def _model_name(path: PathLike, model: Any) -> str:
    """Under which name the model is built with low-rank layers."""
    name = getattr(model, "_name", None) or getattr(model, "arch", None)
    kind = ARCH_MODEL_REGISTRY.get(name) or MODEL_REGISTRY.get(name)
    if kind is TransformerModel:
        return OURS
    if kind is None or not issubclass(kind, MODEL_REGISTRY[OURS]):
        raise CheckpointError(f"checkpoint {path}: must be of transformer or of one of our architectures, got {name}")
    return str(name)
