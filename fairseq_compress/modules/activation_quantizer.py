"""Fake quantization of the input of a layer, with a moving average of its range."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fairseq_compress.functional.quantization.linear import fake_quantize_activations
from fairseq_compress.functional.quantization.magnitudes import Magnitudes
from fairseq_compress.modules.positions import current

NAME = "input_quantizer"
RANGE = f".{NAME}.largest"
"""With which the key of a range ends in a state dict."""


class ActivationQuantizer(nn.Module):
    """x̂ of a layer's input, with scale = E / M, E the moving average of max |x| (Q8BERT, arXiv:1910.06188).

    m is max |x| over the tokens of all training forwards of an update, in all processes, without padding and dummy
    batches. :func:`step_ranges` sets E = m in the first update, later E = decay · E + (1 - decay) · m. Until then the
    range is max |x| of the batch (dynamic).

    Args:
        bits: 2 to 8.
        decay: of the average.
        time_first: whether inputs are ``(T, B, C)``, not ``(B, T, C)``.
    """

    largest: Tensor
    """E; zero: not set."""
    seen: Tensor
    """m so far in this update; zero: none."""
    last: Tensor
    """max |x| of the last training forward."""
    watching: Magnitudes | None
    """If set, inputs pass unchanged and are counted there."""

    def __init__(self, bits: int = 8, decay: float = 0.9999, time_first: bool = True) -> None:
        super().__init__()
        self.bits, self.decay, self.time_first = bits, decay, time_first
        self.watching: Magnitudes | None = None
        self.register_buffer("largest", torch.zeros(()))
        # No buffers: they differ between processes, and --broadcast-buffers would replace them.
        self.seen, self.last = torch.zeros(()), torch.zeros(())
        self.register_load_state_dict_pre_hook(_zero_without_key)

    def forward(self, x: Tensor) -> Tensor:
        """x̂ in shape and type of ``x``."""
        if x.numel() == 0:
            return x
        if self.watching is not None:
            self.watching.add(current().of(x.detach(), self.time_first))
            return x
        return fake_quantize_activations(x, self._range(x.detach()), self.bits)

    def _range(self, x: Tensor) -> Tensor:
        if not self.training and self.largest > 0:
            return self.largest
        found = current().largest(x, self.time_first)
        if current().observed:
            self.seen, self.last = torch.maximum(self.seen.to(found), found), found
        elif self.training:  # activation checkpointing: the same forward again, of which nothing but x is known
            found = torch.where(self.last.to(found) > 0, self.last.to(found), found)
        return torch.where(self.largest > 0, self.largest, found) if self.training else found

    def step(self, largest: Tensor) -> None:
        """End an update in which ``largest`` was m; 0 leaves E as it is."""
        average = torch.where(self.largest > 0, self.decay * self.largest + (1 - self.decay) * largest, largest)
        self.largest = torch.where(largest > 0, average, self.largest)
        self.seen, self.last = torch.zeros_like(self.seen), torch.zeros_like(self.last)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, decay={self.decay:g}, largest={self.largest.item():.4g}"


@torch.no_grad()
def step_ranges(model: nn.Module, again: bool = False) -> None:
    """Update the moving averages of all quantizers of a model; all processes call it at the end of each update.

    Args:
        again: the update is a repetition (``--amp``): discard m.
    """
    quantizers = [module for module in model.modules() if isinstance(module, ActivationQuantizer)]
    if not quantizers:
        return
    seen = torch.stack([quantizer.seen.to(quantizer.largest) for quantizer in quantizers]) * (not again)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(seen, op=dist.ReduceOp.MAX)
    for quantizer, largest in zip(quantizers, seen, strict=True):
        quantizer.step(largest)


def quantize_input(layer: nn.Module, quantizer: ActivationQuantizer) -> None:
    """Quantize the input of a layer by its new child ``input_quantizer``."""
    layer.add_module(NAME, quantizer)
    layer.register_forward_pre_hook(_quantized)


def remove_quantizers(model: nn.Module) -> dict[str, float]:
    """Remove all quantizers of a model; returns E by the name of the layer."""
    found = {}
    for name, layer in model.named_modules():
        quantizer = getattr(layer, NAME, None)
        if isinstance(quantizer, ActivationQuantizer):
            found[name] = quantizer.largest.item()
    for name in found:
        layer = model.get_submodule(name)
        delattr(layer, NAME)
        hooks: Any = layer._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if hook is _quantized]:
            del hooks[key]
    return found


def _quantized(layer: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (layer.input_quantizer(inputs[0]), *inputs[1:])


def _zero_without_key(module: ActivationQuantizer, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A checkpoint of the plain model has no range."""
    state.setdefault(f"{prefix}largest", torch.zeros(()))
