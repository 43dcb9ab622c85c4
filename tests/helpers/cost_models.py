"""Tiny models, runs of them, and a counter of what their kernels multiply."""

import argparse
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from fairseq import models
from fairseq.data import Dictionary
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import fairseq_compress.models  # noqa: F401 - registers our architectures

ENTRIES = 37


def make_model(architecture: str, entries: int = ENTRIES, **values: Any) -> nn.Module:
    """A model in evaluation; widths, layers and heads differ everywhere they may."""
    dictionary = Dictionary()
    for number in range(entries - len(dictionary)):
        dictionary.add_symbol(f"w{number}")
    small = {
        "encoder_layers": 3, "decoder_layers": 2, "encoder_embed_dim": 12, "decoder_embed_dim": 12,
        "encoder_ffn_embed_dim": 20, "decoder_ffn_embed_dim": 28, "encoder_attention_heads": 3,
        "decoder_attention_heads": 2, "dropout": 0.0,
    }  # fmt: skip
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    torch.manual_seed(1)
    return models.build_model(argparse.Namespace(arch=architecture, **(small | values)), task).eval()


def _scores(q: Tensor, k: Tensor, v: Tensor) -> int:
    """Of one query, one key and one value after another, for ``(B, H, T, D)`` and ``(B, H, S, D)``."""
    return q.size(0) * q.size(1) * q.size(2) * k.size(2) * (q.size(3) + v.size(3))


PRODUCTS: dict[str, Callable[..., int]] = {
    "mm": lambda a, b: a.size(0) * a.size(1) * b.size(1),
    "addmm": lambda _, a, b: a.size(0) * a.size(1) * b.size(1),
    "bmm": lambda a, b: a.numel() * b.size(2),
    "baddbmm": lambda _, a, b: a.numel() * b.size(2),
    "_scaled_dot_product_flash_attention_for_cpu": lambda q, k, v, *_: _scores(q, k, v),
    "convolution": lambda x, w, bias, stride, padding, *_: (
        w.numel() * x.size(0) * ((x.size(2) + 2 * padding[0] - w.size(2)) // stride[0] + 1)
    ),
}
SUSPECT = ("mm", "mv", "dot", "linear", "conv", "rnn", "lstm", "einsum", "outer", "attention", "sparse", "bilinear")


class ProductCounter(TorchDispatchMode):
    """Adds up the multiply-adds of every kernel that multiplies matrices; one that it does not know is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            self.total += PRODUCTS[name](*args)
        else:
            assert not any(word in name for word in SUSPECT), f"what does {name} multiply?"
        return func(*args, **(kwargs or {}))


def counted(run: Callable[[], Any]) -> int:
    """Multiply-adds of a run, without gradients."""
    with torch.no_grad(), ProductCounter() as counter:
        run()
    return counter.total


def tokens(length: int, rows: int = 1, entries: int = ENTRIES) -> Tensor:
    """Random words, the same in each of the rows, with the end symbol at the end."""
    words = torch.randint(4, entries, (1, length), generator=torch.Generator().manual_seed(length))
    words[0, -1] = 2
    return words.expand(rows, length).contiguous()


def encode(model: nn.Module, source: int) -> dict[str, list[Tensor]]:
    """The encoder's output for S tokens."""
    with torch.no_grad():
        return model.encoder(tokens(source), torch.tensor([source]))


def decode(model: nn.Module, source: int, target: int, beam: int = 1) -> list[int]:
    """Multiply-adds of T steps with cached keys and values, each step by itself, the encoder not counted."""
    model.decoder.set_beam_size(beam)
    encoded = model.encoder.reorder_encoder_out(encode(model, source), torch.zeros(beam, dtype=torch.int64))
    state: dict[str, Any] = {}
    prefix = tokens(target, beam)
    return [counted(lambda t=t: model.decoder(prefix[:, :t], encoded, state)) for t in range(1, target + 1)]
