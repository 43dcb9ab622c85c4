r"""The exact multiply-adds of an encoder-decoder model of fairseq, from its modules, without running it.

Counted are matrix products: linear layers, attention's scores and weighted sums, structured layers and embeddings, the
output layer; not biases, norms, softmax, gates, other elementwise operations and lookups. A sparse layer counts with
its nonzero entries. Decoding counts the model after ``make_generation_fast_``, which caches a tensor train;
a forward pass counts it for each row. One multiply-add is two FLOPs.

For S source tokens and T target tokens, EOS included, one sentence costs

.. math:: a S + b S^2 + c T + d\,T S + e\,P

where a linear layer adds in · out a row, and attention over H heads of width D adds 2 · H · D for each pair of a query
and a key. P, the pairs in the self-attention of the decoder, are T² in a teacher-forced forward, masked half included,
and T (T + 1) / 2 in decoding with cached keys and values. Keys and values of the source are projected once a sentence.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from enum import Enum

from fairseq.modules import AdaptiveInput, AdaptiveSoftmax, MultiheadAttention
from torch import nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.structured import StructuredWeight

EMBEDDINGS, ENCODER, DECODER, OUTPUT = "embeddings", "encoder", "decoder", "output"
_OUTPUT_MODULES = ("output_projection", "project_out_dim", "adaptive_softmax")
_EMBEDDING_MODULES = ("embed_tokens", "embed_positions", "layernorm_embedding", "project_in_dim", "quant_noise")


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds by part of the model."""

    embeddings: int  # of both sides
    encoder: int
    decoder: int  # with the keys and values of the source
    output: int  # features to logits

    @property
    def total(self) -> int:
        return sum(astuple(self))


class _Times(Enum):
    """The number of times that a product is computed."""

    SOURCE = "source tokens"
    TARGET = "target tokens"
    SOURCE_PAIRS = "pairs of source tokens"
    CROSS_PAIRS = "pairs of a target and a source token"
    TARGET_PAIRS = "pairs of target tokens"


_Work = Counter[tuple[str, _Times]]


def forward_multiply_adds(model: nn.Module, source_tokens: int, target_tokens: int) -> MultiplyAdds:
    """Multiply-adds of a teacher-forced forward pass of one sentence; EOS counts in S and T."""
    check_positive(source_tokens=source_tokens, target_tokens=target_tokens)
    return _sum(_work(model), _times(source_tokens, target_tokens, target_tokens**2))


def decoding_multiply_adds(model: nn.Module, source_tokens: int, target_tokens: int, beam: int = 1) -> MultiplyAdds:
    """Multiply-adds of decoding one sentence in T steps with cached keys and values; EOS counts in S and T."""
    check_positive(source_tokens=source_tokens, target_tokens=target_tokens, beam=beam)
    pairs = target_tokens * (target_tokens + 1) // 2
    return _sum(_work(model, generation=True), _times(source_tokens, beam * target_tokens, beam * pairs))


def step_multiply_adds(model: nn.Module, source_tokens: int, position: int, beam: int = 1) -> MultiplyAdds:
    """Multiply-adds of decoding step t (``position``, from 1), which attends to t target positions."""
    check_positive(source_tokens=source_tokens, position=position, beam=beam)
    once = {_Times.SOURCE: 0, _Times.SOURCE_PAIRS: 0}
    return _sum(_work(model, generation=True), _times(source_tokens, beam, beam * position) | once)


def part_of(name: str) -> str:
    """The part of a module or parameter, by its name; the first part of the name if it is in neither side."""
    side, _, rest = name.partition(".")
    place = rest.partition(".")[0]
    if side not in (ENCODER, DECODER):
        return side
    if place in _OUTPUT_MODULES:
        return OUTPUT
    return EMBEDDINGS if place in _EMBEDDING_MODULES else side


def check_positive(**values: int) -> None:
    """Refuse values below 1."""
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name}: must be in [1, inf), got {value}")


def _times(source: int, target: int, target_pairs: int) -> dict[_Times, int]:
    return dict(zip(_Times, (source, target, source**2, target * source, target_pairs), strict=True))


def _sum(work: _Work, times: Mapping[_Times, int]) -> MultiplyAdds:
    parts = Counter({EMBEDDINGS: 0, ENCODER: 0, DECODER: 0, OUTPUT: 0})
    for (part, repeated), products in work.items():
        parts[part] += products * times[repeated]
    return MultiplyAdds(**parts)


def _work(model: nn.Module, generation: bool = False) -> _Work:
    """The coefficients: multiply-adds by part and factor."""
    work: _Work = Counter()
    of_source: set[str] = set()
    counted = ""
    # Under every name: a module that is called in two places works in both.
    for name, module in model.named_modules(remove_duplicate=False):
        if counted and name.startswith(f"{counted}."):
            continue
        if isinstance(module, MultiheadAttention):
            pairs = _pairs(model, name, module)
            work[_part(name, module), pairs] += 2 * module.num_heads * module.head_dim
            if pairs is _Times.CROSS_PAIRS:
                of_source |= {f"{name}.k_proj", f"{name}.v_proj"}
            continue
        products = _products_per_row(name, module, generation)
        if products is None:
            continue
        counted = name
        if products:
            source = name.startswith(f"{ENCODER}.") or name in of_source
            work[_part(name, module), _Times.SOURCE if source else _Times.TARGET] += products
    return work


def _products_per_row(name: str, module: nn.Module, generation: bool) -> int | None:
    """Multiply-adds of a module and its children for one row of its input; None: count the children."""
    if generation and isinstance(module, StructuredWeight):
        return module.generation_multiply_adds
    if hasattr(type(module), "multiply_adds"):  # structured layers, and embeddings for a token
        products: int = module.multiply_adds  # type: ignore[assignment]
        return products
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features
    if isinstance(module, (nn.Embedding, nn.LayerNorm)):
        return 0
    if isinstance(module, (AdaptiveInput, AdaptiveSoftmax)):
        raise _unknown(name, module, "its products depend on the tokens")
    if hasattr(module, "k_proj"):
        raise _unknown(name, module, "it looks like an attention of another kind")
    if any(parameter.dim() >= 2 for parameter in module.parameters(recurse=False)):
        raise _unknown(name, module, "it has a matrix of its own")
    return None


def _pairs(model: nn.Module, name: str, attention: MultiheadAttention) -> _Times:
    if attention.bias_k is not None or attention.add_zero_attn or getattr(attention, "use_xformers", False):
        raise _unknown(name, attention, "it has more keys than tokens, or a kernel of xformers")
    if attention.encoder_decoder_attention:
        return _Times.CROSS_PAIRS
    layer, _, place = name.rpartition(".")
    # The flag of self-attention is off in layers with bottlenecks, whose keys and values have other inputs.
    if place != "self_attn" or getattr(model.get_submodule(layer), "cross_self_attention", False):
        raise _unknown(name, attention, "it is no self-attention, and none to the source alone")
    return _Times.SOURCE_PAIRS if name.startswith(f"{ENCODER}.") else _Times.TARGET_PAIRS


def _part(name: str, module: nn.Module) -> str:
    part = part_of(name)
    if part not in (EMBEDDINGS, ENCODER, DECODER, OUTPUT):
        raise _unknown(name, module, "it is neither in the encoder nor in the decoder")
    return part


def _unknown(name: str, module: nn.Module, reason: str) -> ConfigError:
    place = f"{name or 'the model'} ({type(module).__name__})"
    return ConfigError(f"multiply-adds: must be known for every module with a matrix, got {place}: {reason}")
