"""An encoder that reads a batch once, for several passes of the decoder."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from fairseq_compress.models.student_output import unwrapped


@contextmanager
def encoding_once(models: Iterable[nn.Module]) -> Iterator[None]:
    """While this is open, the encoder of each model computes its first call and gives the same output to all others.

    So everything goes through the forward of the model as DDP has wrapped it; the gradients of all decoder passes meet
    in the one output. For calls with the same source only.
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
