"""The cost of a model: parameters, bytes at each precision, multiply-adds."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, fields

from torch import Tensor, nn

from fairseq_compress.checkpoint.load import dictionaries_of, load_upgraded, new_model
from fairseq_compress.errors import ConfigError
from fairseq_compress.evaluation.multiply_adds import (
    DECODER,
    EMBEDDINGS,
    ENCODER,
    OUTPUT,
    MultiplyAdds,
    check_positive,
    decoding_multiply_adds,
    forward_multiply_adds,
    part_of,
    step_multiply_adds,
)
from fairseq_compress.functional.quantization.bit_packing import packed_bytes
from fairseq_compress.functional.quantization.linear import LinearScheme
from fairseq_compress.functional.ties import tied_groups
from fairseq_compress.weights.groups import PLAIN, compressed_groups, weight_modules
from fairseq_compress.weights.reading import set_plan
from fairseq_compress.weights.rules import Plan

KINDS = ("attention", "ffn", "norm", "other")
FLOATS = {"float32": 4, "float16": 2}
INTEGERS = {"int8": 8, "int4": 4}
_NAME = {name: f"all parameters in {name}" for name in FLOATS} | {
    name: f"{name} of linear layers and embeddings, a float32 scale a row; other parameters in float32"
    for name in INTEGERS
}


def plain_model(path: str | os.PathLike[str]) -> nn.Module:
    """The model of a checkpoint, packed or not, without plan and with untrained weights."""
    state, cfg = load_upgraded(path)
    set_plan(cfg.model, Plan())
    return new_model(path, cfg, *dictionaries_of(state["model"]))


def decoding_cost(path: str | os.PathLike[str], tokens: int) -> int:
    """Multiply-adds of decoding ``tokens`` source tokens into as many target tokens with a beam of 1."""
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq

    import fairseq_compress

    check_positive(**{"--cost-tokens": tokens})
    fairseq_compress.register()
    return decoding_multiply_adds(plain_model(path), tokens, tokens).total


def parameters_by_part(model: nn.Module) -> dict[str, Counter[str]]:
    """Parameters by part and kind (:data:`KINDS`), shared ones once; ``embeddings`` includes the output layer."""
    parts: dict[str, Counter[str]] = {part: Counter() for part in (EMBEDDINGS, ENCODER, DECODER)}
    for name, tensor in _stored(model):
        if isinstance(tensor, nn.Parameter):
            part = part_of(name)
            counts = parts.setdefault(EMBEDDINGS if part == OUTPUT else part, Counter())
            counts[_kind(model, name)] += tensor.numel()
    return parts


def bytes_by_precision(model: nn.Module) -> dict[str, int]:
    """Packed bytes of all parameters and buffers at each precision; shared ones count once.

    A matrix R × C of a linear layer or embedding in b bits takes ⌈R C b / 8⌉ bytes and 4 R for its scales; other
    parameters are in float32 then. Buffers do not change.
    """
    matrices = {f"{name}.{PLAIN}" for name in weight_modules(model)}
    sizes = Counter(dict.fromkeys([*FLOATS, *INTEGERS], 0))
    for name, tensor in _stored(model):
        if not isinstance(tensor, nn.Parameter):
            sizes.update(dict.fromkeys(sizes, tensor.numel() * tensor.element_size()))
            continue
        sizes.update({precision: size * tensor.numel() for precision, size in FLOATS.items()})
        for precision, bits in INTEGERS.items():
            sizes[precision] += _linear_bytes(tensor, bits) if name in matrices else FLOATS["float32"] * tensor.numel()
    return dict(sizes)


def cost_lines(model: nn.Module, source_tokens: int, target_tokens: int, packed: int | None = None) -> list[str]:
    """Tables of parameters, of multiply-adds of a sentence, and of bytes, ``packed`` ones in the last line."""
    check_positive(source_tokens=source_tokens, target_tokens=target_tokens)
    work = _multiply_add_lines(model, source_tokens, target_tokens)
    sizes = [_row([size], _NAME[precision]) for precision, size in bytes_by_precision(model).items()]
    if packed is not None:
        sizes.append(_row([packed], "as it is, with names and configuration"))
    return [*_parameter_lines(model), "", *work, "", _row(["bytes"], "stored as"), *sizes]


def _stored(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Every parameter and buffer of the state dict once, under its first name."""
    if any(True for _ in compressed_groups(model)):
        raise ConfigError("model: must be plain for its cost, got one with a compression plan attached")
    state = model.state_dict(keep_vars=True)
    return [(names[0], state[names[0]]) for names in tied_groups(state)]


def _kind(model: nn.Module, name: str) -> str:
    owner = name.rpartition(".")[0]
    places = owner.split(".")
    if "norm" in type(model.get_submodule(owner)).__name__.lower() or "norm" in places[-1]:
        return "norm"
    if any(place.endswith("_attn") for place in places):
        return "attention"
    return "ffn" if any(place.startswith(("fc", "ffn")) for place in places) else "other"


def _linear_bytes(weight: Tensor, bits: int) -> int:
    rows, columns = weight.shape
    scales, scale_bits = LinearScheme(bits).scale_count((rows, columns))
    return packed_bytes(rows * columns, bits) + packed_bytes(scales, scale_bits)


def _parameter_lines(model: nn.Module) -> list[str]:
    parts = parameters_by_part(model)
    rows = {part: [counts[kind] for kind in KINDS] for part, counts in parts.items()}
    rows["total"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    return [_row([*KINDS, "parameters"], "of"), *(_row([*row, sum(row)], part) for part, row in rows.items())]


def _multiply_add_lines(model: nn.Module, source: int, target: int) -> list[str]:
    try:
        forward = forward_multiply_adds(model, source, target)
        found = {
            f"teacher-forced forward, {source} source and {target} target tokens": forward,
            "decoding of these, beam 1": decoding_multiply_adds(model, source, target),
            f"step {target} of it": step_multiply_adds(model, source, target),
        }
    except ConfigError as error:
        return [f"not counted: {error}"]
    head = _row([*(field.name for field in fields(MultiplyAdds)), "total"], "multiply-adds of products of matrices")
    return [head, *(_row([*astuple(cost), cost.total], what) for what, cost in found.items())]


def _row(cells: Sequence[int | str], label: str) -> str:
    return "  ".join([*(f"{cell:>13,}" if isinstance(cell, int) else f"{cell:>13}" for cell in cells), label])
