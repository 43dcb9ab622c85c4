"""JSON to an architecture, and back.

::

    {"encoder": {"width": 256, "layers": [
        {"self_attention": {"heads": 4}, "ffn": 512},
        {"self_attention": {"heads": 2, "head_width": 64}, "ffn": 256},
        {"shared_with": 1}]},
     "decoder": {"width": 256, "layers": [
        {"self_attention": {"kind": "ssru"}, "cross_attention": {"heads": 3, "head_width": 64}, "ffn": 512}]},
     "embeddings": {"kind": "factorized", "rank": 64, "tying": "all"}}

The default of ``head_width`` is the width of the layer divided by ``heads``.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fairseq_compress.architecture.shape import VERSION, Architecture
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.options import raise_problems, read
from fairseq_compress.shipped import did_you_mean, shipped, shipped_names

FOLDER, SUFFIX = "architectures", ".json"
ATTENTIONS = ("self_attention", "cross_attention")


def read_architecture(value: str | os.PathLike[str]) -> Architecture:
    """The architecture of JSON text, a file, or the name of a shipped file (``configs/architectures/NAME.json``)."""
    text = os.fspath(value)
    if text.lstrip().startswith("{"):
        return from_json(text)
    path = Path(text)
    if not path.is_file() and path.name == text and path.suffix in ("", SUFFIX):
        known = shipped_names(FOLDER, suffix=SUFFIX)
        if path.stem not in known:
            guess = did_you_mean(path.stem, known)
            raise ConfigError(f"--architecture {text}: neither a file nor a shipped architecture{guess}")
        path = shipped(FOLDER, path.stem + SUFFIX)
    try:
        return from_json(path.read_text(encoding="utf-8"), f"--architecture {text}")
    except OSError as error:
        raise ConfigError(f"--architecture {text}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--architecture {text}: must be text in UTF-8") from None


@lru_cache(maxsize=64)
def from_json(text: str, origin: str = "--architecture") -> Architecture:
    """The architecture of JSON text; ``origin`` names it in messages. Raises as :func:`read_architecture`."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{origin}: must be JSON: {error}") from None
    found: list[str] = []
    if isinstance(raw, dict):
        raw |= {part: _completed_stack(raw[part], part, found) for part in PARTS if isinstance(raw.get(part), dict)}
    architecture = read(Architecture, raw, found)
    raise_problems(found, origin)
    assert architecture is not None
    return architecture


def to_json(architecture: Architecture) -> str:
    """The architecture in one line, the inverse of :func:`from_json`."""
    raw = _plain(architecture) | {"version": VERSION}
    for part in PARTS:
        for layer in raw[part].get("layers", []):
            if "shared_with" in layer:
                number = layer["shared_with"]
                layer.clear()
                layer["shared_with"] = number
            elif part == "decoder":
                layer.setdefault("cross_attention", None)
    return json.dumps(raw)


def _plain(value: Any) -> Any:
    """Dataclasses as tables without the fields that have their default."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not is_dataclass(value):
        return value
    return {
        each.name: _plain(getattr(value, each.name))
        for each in fields(value)
        if each.default is MISSING or getattr(value, each.name) != each.default
    }


def _completed_stack(stack: Mapping[str, Any], part: str, found: list[str]) -> dict[str, Any]:
    """With default head widths, and with shared layers written out."""
    layers: list[Any] = []
    given = stack.get("layers")
    for number, layer in enumerate(given if isinstance(given, list) else []):
        place = f"{part}.layers[{number}]"
        if not isinstance(layer, dict):
            layers.append(layer)
        elif "shared_with" in layer:
            layers.append(_follower(layer, layers, place, found))
        else:
            if part == "decoder" and "cross_attention" not in layer:
                found.append(f"{place}.cross_attention: is missing (null: without attention to the encoder)")
            layers.append(layer | _completed_attentions(layer, stack.get("width"), place, found))
    return {**stack, "layers": layers} if isinstance(given, list) else dict(stack)


def _follower(layer: dict[str, Any], before: list[Any], place: str, found: list[str]) -> Any:
    number = layer["shared_with"]
    if type(number) is not int or not 0 <= number < len(before):
        found.append(f"{place}.shared_with: must be a layer before it, got {number!r}")
        return layer
    if len(layer) > 1:
        found.append(f"{place}: must have no other keys than shared_with, got {', '.join(layer)}")
    return before[number] | {"shared_with": number} if isinstance(before[number], dict) else layer


def _completed_attentions(layer: dict[str, Any], width: Any, place: str, found: list[str]) -> dict[str, Any]:
    bottleneck = layer.get("bottleneck")
    inside = bottleneck.get("width") if isinstance(bottleneck, dict) else width
    completed = {}
    for name in ATTENTIONS:
        attention = layer.get(name)
        if not isinstance(attention, dict) or "head_width" in attention:
            continue
        heads = attention.get("heads")
        if type(heads) is int and heads > 0 and type(inside) is int:
            if inside % heads:
                found.append(f"{place}.{name}.head_width: is missing; {heads} heads do not divide the width {inside}")
            completed[name] = attention | {"head_width": max(1, inside // heads)}
    return completed
