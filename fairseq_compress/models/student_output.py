"""Inputs of a loss: a model's logits, or its last hidden states and its output matrix."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from fairseq.models.transformer import TransformerDecoderBase, TransformerModelBase
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.losses.outputs import Projected
from fairseq_compress.models.compressed_transformer import CompressedTransformerDecoder
from fairseq_compress.modules.factorized_output import FactorizedOutput
from fairseq_compress.modules.projected_embedding import ProjectedOutput

SOURCES = ("auto", "hidden", "logits")

# Outputs of two factors: hidden states are multiplied by the first, and the second is the output matrix.
_REDUCING = (FactorizedOutput, ProjectedOutput)
# Output layers that are one product with ``output_projection``.
_PLAIN_OUTPUT_LAYERS = (TransformerDecoderBase.output_layer, CompressedTransformerDecoder.output_layer)


def student_output(model: nn.Module, net_input: dict[str, Any], source: str = "auto") -> Tensor | Projected:
    """Logits (N, V) or hidden states (N, C) with the output matrix, where N = B · T rows of the target.

    The forward pass goes through ``model`` with its DDP wrappers; the matrix is read from the model inside.

    Args:
        source: ``logits``; ``hidden``; or ``auto``: hidden states where possible, except in float16.
    """
    if reason := why_no_logits(unwrapped(model)):
        raise ConfigError(reason)
    if takes_hidden(model, source):
        return projected(model, net_input)
    logits = model(**net_input)[0]
    return logits.reshape(-1, logits.size(-1))


def why_no_logits(model: Any) -> str | None:
    """None if a model without wrappers gives a logit for each entry of the dictionary, else why not."""
    decoder = getattr(model, "decoder", model)
    if getattr(decoder, "adaptive_softmax", None) is not None:
        return "--adaptive-softmax-cutoff: must not be given here, the loss needs logits of the whole dictionary"
    projection, width = getattr(decoder, "output_projection", None), getattr(decoder, "output_embed_dim", None)
    if isinstance(projection, nn.Linear) and width not in (None, projection.in_features):
        return f"--decoder-output-dim: must be {projection.in_features}, the width of the output matrix, got {width}"
    return None


def takes_hidden(model: nn.Module, source: str, part: Any = None) -> bool:
    """Whether the inputs of the loss are hidden states, of ``model`` in its wrappers or a ``part`` of it."""
    if source not in SOURCES:
        raise ConfigError(f"--loss-from: must be one of {', '.join(SOURCES)}, got {source!r}")
    if source == "logits":
        return False
    reason = why_no_output_matrix(model, part)
    if source == "hidden" and reason is not None:
        raise ConfigError(f"--loss-from hidden: the logits must be a product with one plain output matrix, {reason}")
    return reason is None and (source == "hidden" or _product_dtype(model) != torch.float16)


def projected(model: nn.Module, net_input: dict[str, Any]) -> Projected:
    """Hidden states (N, C) and output matrix of a model for which :func:`why_no_output_matrix` is None."""
    return project(unwrapped(model), model(**net_input, features_only=True)[0])


def project(model: Any, hidden: Tensor) -> Projected:
    """Hidden states (B, T, C) of a model without wrappers, and its output matrix."""
    hidden = hidden.reshape(-1, hidden.size(-1)).contiguous()  # fairseq's features are a transposed view
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    projection = model.decoder.output_projection
    if isinstance(projection, _REDUCING):
        return Projected(projection.reduce(hidden), projection.table_weight, None)
    return Projected(hidden, projection.weight, projection.bias)


def unwrapped(model: nn.Module) -> Any:
    """The model inside of fairseq's and torch's wrappers for distributed training."""
    return list(_wrappers(model))[-1]


def _wrappers(model: Any) -> Iterator[Any]:
    """From the outermost wrapper to the model itself."""
    while isinstance(model, nn.Module):
        yield model
        model = getattr(model, "module", None)


def why_no_output_matrix(model: nn.Module, part: Any = None) -> str | None:
    """None if logits are hidden states times ``decoder.output_projection``, of ``part`` if given, else the reason."""
    for wrapper in _wrappers(model):
        if type(wrapper).__name__ == "FullyShardedDataParallel":
            return "got a sharded one (--ddp-backend fully_sharded)"
        if isinstance(wrapper, DistributedDataParallel) and wrapper.find_unused_parameters:
            return "got one that DDP would take for unused (--find-unused-parameters)"
    inner = unwrapped(model) if part is None else part
    decoder: Any = getattr(inner, "decoder", None)
    projection: Any = getattr(decoder, "output_projection", None)
    plain = isinstance(projection, nn.Linear) and type(projection).forward is nn.Linear.forward
    if type(projection) not in _REDUCING and not plain:
        return f"got a decoder with the output {type(projection).__name__}"
    if type(inner).forward is not TransformerModelBase.forward:
        return f"got the model {type(inner).__name__} with a forward of its own"
    if type(decoder).forward is not TransformerDecoderBase.forward:
        return f"got the decoder {type(decoder).__name__} with a forward of its own"
    if type(decoder).output_layer not in _PLAIN_OUTPUT_LAYERS or decoder.adaptive_softmax is not None:
        return f"got the decoder {type(decoder).__name__} with an output layer of its own"
    hooks = [(module._forward_hooks, module._forward_pre_hooks) for module in projection.modules()]
    if any(after or before for after, before in hooks) or decoder._forward_hooks:
        return "got hooks on the decoder's output"
    return None


def _product_dtype(model: nn.Module) -> torch.dtype:
    """The type of the output layer's product."""
    weight = next(model.parameters())
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


@contextmanager
def encoding_once(models: Iterable[nn.Module]) -> Iterator[None]:
    """Within the context, the encoder of each model returns the output of its first call for all calls.

    All calls must have the same source; gradients of all decoder passes add up in the one output.
    """
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(_memorizing(unwrapped(model).encoder))
        yield


@contextmanager
def _memorizing(encoder: Any) -> Iterator[None]:
    original = encoder.forward
    outputs: list[Any] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not outputs:
            outputs.append(original(*args, **kwargs))
        return outputs[0]

    encoder.forward = forward
    try:
        yield
    finally:
        del encoder.forward  # the one of its class is there again
