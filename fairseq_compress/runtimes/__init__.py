"""Runtimes of models: torch, ONNX Runtime, CTranslate2, and :func:`open` for a model of any of them.

A new runtime is a folder and an entry in :data:`RUNTIMES`. What it needs is imported when a model is opened.
"""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fairseq_compress.errors import DataError, MissingPackageError
from fairseq_compress.extras import explained

if TYPE_CHECKING:
    from fairseq_compress.runtimes.model_directory import ModelDirectory
    from fairseq_compress.runtimes.opened import OpenedModel
    from fairseq_compress.runtimes.options import RuntimeOptions


@dataclass(frozen=True)
class Runtime:
    """The modules and properties of a runtime."""

    module: str
    """Has ``open_model(path, options)`` as :func:`open`; the path is a ModelDirectory if there is a writer."""
    writer: str = ""
    """The module that writes its directories: ``VERSION``, ``load``, ``why_not`` and ``write_model`` as in
    ``export/onnx_format.py``."""
    quantizations: tuple[str, ...] = ()
    automatic: tuple[str, ...] = ()  # the quantizations that ``export --runtime auto`` tries
    weight_files: tuple[str, ...] = ()  # files of a directory that hold weights, or patterns of their names
    early: str = ""
    """A module that is imported before ``module``: its ``begin(directory, options)`` starts to load a directory."""
    calibration: str = ""
    """The module that finds the ranges of ``int8_calibrated``, as ``export/calibration.py``."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """Options of the search that have one value in the runtime."""


ONNX_FILES = (
    "encoder.onnx", "step.onnx", "greedy.onnx", "beam.onnx", "weights.bin", "encoder_positions.npy",
    "decoder_positions.npy",
)  # fmt: skip
# The search of fxtranslate 0.5.0, whose sentences have at most 2 S + 4 tokens.
GREEDY = {"beam": 1, "max_len_a": 2.0, "max_len_b": 4, "min_len": 0, "unkpen": 0.0, "no_repeat_ngram_size": 0}
RUNTIMES = {
    "torch": Runtime("fairseq_compress.runtimes.torch.model"),
    "onnx": Runtime(
        "fairseq_compress.runtimes.onnx.model", "fairseq_compress.export.onnx_format",
        ("float32", "int8", "int8_batch", "int8_calibrated", "int8_block", "int4", "plan"),
        ("float32", "int8", "int8_calibrated", "int8_block", "int4"), ONNX_FILES,
        "fairseq_compress.runtimes.onnx.sessions", "fairseq_compress.export.calibration",
    ),
    "ctranslate2": Runtime(
        "fairseq_compress.runtimes.ctranslate2.model", "fairseq_compress.export.ctranslate2_format",
        ("float32", "int8", "int8_float32", "int16", "float16", "bfloat16"), ("float32", "int8"), ("model.bin",),
    ),
    "bergamot": Runtime(
        "fairseq_compress.runtimes.bergamot.model", "fairseq_compress.export.bergamot_format", ("int8_calibrated",),
        weight_files=("model.*.intgemm.alphas.bin",), calibration="fairseq_compress.export.bergamot_calibration",
        search=GREEDY,
    ),
}  # fmt: skip


def exported() -> dict[str, Runtime]:
    """The runtimes that ``fairseq-compress export`` writes directories for."""
    return {name: each for name, each in RUNTIMES.items() if each.writer}


def open(path: "str | os.PathLike[str] | ModelDirectory", options: "RuntimeOptions | None" = None) -> "OpenedModel":
    """Open a model directory, a checkpoint (packed or not), or an ensemble ``A.pt:B.pt``."""
    from fairseq_compress.runtimes.model_directory import ModelDirectory
    from fairseq_compress.runtimes.options import RuntimeOptions

    if not isinstance(path, ModelDirectory) and os.path.isdir(path):
        path = ModelDirectory.open(path)
    name = path.metadata["runtime"] if isinstance(path, ModelDirectory) else "torch"
    options, runtime = options or RuntimeOptions(), RUNTIMES[name]
    try:
        with explained():
            if runtime.early and isinstance(path, ModelDirectory):
                path = importlib.import_module(runtime.early).begin(path, options)
            module = importlib.import_module(runtime.module)
    except MissingPackageError:
        raise
    except ImportError as error:
        place = path.path if isinstance(path, ModelDirectory) else path
        raise DataError(
            f"{place}: requires the runtime {name}, which cannot be imported: {' '.join(str(error).split())}"
        ) from None
    return module.open_model(path, options)
