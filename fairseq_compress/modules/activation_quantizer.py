"""Fake quantization of what a layer reads, with a moving average of its range."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fairseq_compress.functional.linear_quantization import fake_quantize_activations
from fairseq_compress.functional.magnitudes import Magnitudes

NAME = "input_quantizer"
RANGE = f".{NAME}.largest"
"""With which the key of a range ends in a state dict."""


class ActivationQuantizer(nn.Module):
    """x̂ of a layer's input, with S = M / E, E the moving average of max |x| (Q8BERT, arXiv:1910.06188).

    E starts at the first training batch: E = max |x|; then E = decay · E + (1 - decay) · max |x| in each training
    forward, the maximum over all processes. It is in the checkpoint; before it was set, each input has its own range.

    Args:
        bits: 2 to 8.
        decay: of the average.
    """

    largest: Tensor
    watching: Magnitudes | None
    """Where it is set, inputs pass as they are and are counted there."""

    def __init__(self, bits: int = 8, decay: float = 0.9999) -> None:
        super().__init__()
        self.bits, self.decay = bits, decay
        self.watching: Magnitudes | None = None
        self.register_buffer("largest", torch.zeros(()))  # zero: not set
        self.register_load_state_dict_pre_hook(_start_anew_without_key)

    def forward(self, x: Tensor) -> Tensor:
        """x̂ in shape and type of ``x``."""
        if x.numel() == 0:
            return x
        if self.watching is not None:
            self.watching.add(x.detach())
            return x
        if self.training and torch.is_grad_enabled():  # not in the first pass of activation checkpointing
            self._observe(x.detach())
        if self.training or self.largest == 0:
            largest = torch.where(self.largest == 0, x.detach().abs().amax().float(), self.largest)
        else:
            largest = self.largest
        return fake_quantize_activations(x, largest, self.bits)

    def _observe(self, x: Tensor) -> None:
        found = x.abs().amax().float()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        average = self.decay * self.largest + (1 - self.decay) * found
        self.largest = torch.where(self.largest == 0, found, average).detach()

    def extra_repr(self) -> str:
        return f"bits={self.bits}, decay={self.decay:g}, largest={self.largest.item():.4g}"


def quantize_input(layer: nn.Module, quantizer: ActivationQuantizer) -> None:
    """Let ``layer(x)`` compute ``layer(x̂)``; the quantizer becomes the layer's ``input_quantizer``."""
    layer.add_module(NAME, quantizer)
    layer.register_forward_pre_hook(_quantized)


def remove_quantizers(model: nn.Module) -> dict[str, float]:
    """Take all quantizers out of a model; returns the largest magnitude of each layer that had one, by its name."""
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


def _start_anew_without_key(module: ActivationQuantizer, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A checkpoint of the plain model has no range: training starts to measure it."""
    state.setdefault(f"{prefix}largest", torch.zeros(()))
