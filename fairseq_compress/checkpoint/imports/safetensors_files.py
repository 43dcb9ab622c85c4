"""Weights in ``model.safetensors``, or in several files with an index, as transformers writes them."""

import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from fairseq_compress.errors import DataError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, in float32."""
    found: dict[str, Tensor] = {}
    for name in _file_names(folder):
        try:
            tensors = load_file(folder / name)
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read: {error.strerror or error}") from None
        except safetensors.SafetensorError as error:
            raise DataError(f"{folder / name}: is damaged: {error}") from None
        for key, tensor in tensors.items():
            if tensor.dtype not in FLOATS:
                known = ", ".join(str(each).removeprefix("torch.") for each in FLOATS)
                got = str(tensor.dtype).removeprefix("torch.")
                raise DataError(f"{folder / name}: {key}: must be of the type {known}, got {got}")
            found[key] = tensor.float()
    return found


def _file_names(folder: Path) -> list[str]:
    if (folder / WHOLE).is_file():
        return [WHOLE]
    if not (folder / INDEX).is_file():
        raise DataError(f"{folder}: {_why_none(folder)}")
    table = read_json(folder / INDEX).get("weight_map")
    names = sorted({str(name) for name in table.values()}) if isinstance(table, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise DataError(f"{folder / INDEX}: is damaged: weight_map must name the file of each tensor")
    return names


def _why_none(folder: Path) -> str:
    pickled = next((name for name in PICKLES if (folder / name).is_file()), None)
    if pickled is None:
        return f"must have {WHOLE}, or {INDEX} and the files that it names"
    return (
        f"must have {WHOLE}; {pickled} is a pickle, which can run code and is not read. Convert it where you trust it: "
        f"python -c \"from transformers import AutoModelForSeq2SeqLM as M; M.from_pretrained('{folder}')"
        f".save_pretrained('{folder}')\""
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file with a table."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: is damaged: it must be JSON") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: is damaged: it must be a table of keys")
    return value
