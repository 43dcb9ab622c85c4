"""A checkpoint to a model directory: converted, tried against the checkpoint, described, and only then there."""

import importlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

import fairseq_compress
from fairseq_compress.checkpoint.average import count_parameters
from fairseq_compress.checkpoint.materialize import Materialized, materialize
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError
from fairseq_compress.export.calibration import find_ranges, learned_ranges
from fairseq_compress.export.model_writer import create_directory
from fairseq_compress.export.onnx_linear import Range
from fairseq_compress.export.self_check import CheckOptions, SelfCheck
from fairseq_compress.runtimes.model_directory import FORMAT, VOCABULARIES, VOCABULARY, ModelDirectory
from fairseq_compress.runtimes.open_model import open_model
from fairseq_compress.runtimes.torch.translator import CheckpointModel
from fairseq_compress.teachers.loading import LoadedModels, load_models
from fairseq_compress.teachers.word_ids import warn_of_unknown
from fairseq_compress.work.files import PathLike, file_sha256

CALIBRATED = "int8_calibrated"


@dataclass(frozen=True)
class ExportOptions:
    """What is exported and how.

    Raises:
        ConfigError: the quantization is unknown to the runtime, or lacks its calibration text or does not need it.
    """

    checkpoint: str
    data: str | None
    sentencepiece_model: PathLike
    runtime: str = "onnx"
    quantization: str = "int8"
    calibration: PathLike | None = None
    """Raw source text, in which the ranges of activations are looked for."""
    licence: str | None = None
    search: SearchOptions = field(default_factory=SearchOptions)
    target_sentencepiece_model: PathLike | None = None
    """If the target side has its own."""

    def __post_init__(self) -> None:
        known = _format(self.runtime).QUANTIZATIONS
        if self.quantization not in known:
            raise ConfigError(
                f"--quantization: must be one of {', '.join(known)} with --runtime {self.runtime}, "
                f"got {self.quantization}"
            )
        if self.calibration is not None and self.quantization != CALIBRATED:
            raise ConfigError(f"--calibration: requires --quantization {CALIBRATED}, got {self.quantization}")


class Exporter:
    """A checkpoint, read once, for exports of several kinds.

    Args:
        options: of them only the checkpoint, its data, the sentencepiece model and the search count here.
        check: what the exported model and the checkpoint both translate; None: nothing is compared, and the metadata
            say so.

    Raises:
        ConfigError: the checkpoint is an ensemble, or the sentencepiece model is that of another.
        CheckpointError: the checkpoint is damaged, or is no plain transformer.
    """

    def __init__(self, options: ExportOptions, check: CheckOptions | None) -> None:
        if ":" in options.checkpoint:
            raise ConfigError(f"--checkpoint: must be one model, no ensemble, got {options.checkpoint}")
        self._models = load_models(options.checkpoint, options.data)
        self._segmenter = self._models.open_segmenter(options.sentencepiece_model, options.target_sentencepiece_model)
        self._plain = materialize(options.checkpoint)
        self._check = None
        if check is not None:
            original = CheckpointModel(self._models, options.search)
            self._check = SelfCheck(original, self._segmenter, check, self._models.target_lang)
            pieces = [piece for sentence in self.check_pieces() for piece in sentence]
            unknown = sum(piece not in self._models.source.indices for piece in pieces)
            warn_of_unknown(str(check.source), unknown, len(pieces))

    def fill(self, folder: Path, options: ExportOptions) -> dict[str, Any]:
        """Write the files into a folder that is there, check them, and return the metadata.

        Raises:
            ConfigError: the runtime does not hold the model.
            CheckError: the exported model loses more than it may.
        """
        plain, models = self._plain, self._models
        ranges = self._ranges(options) if options.quantization == CALIBRATED else None
        own = _format(options.runtime).write_model(
            folder, plain.model, plain.values, models.source, models.target, options.quantization, ranges
        )
        for name, path in _sentencepiece_files(options).items():
            shutil.copyfile(path, folder / name)
        metadata = describe(options, models, plain) | {options.runtime: own, "check": None}
        if self._check is not None:
            exported = open_model(ModelDirectory(folder, {"format": FORMAT, **metadata}), options.search)
            metadata["check"] = self._check.compare(exported, options.quantization)
        return metadata

    def _ranges(self, options: ExportOptions) -> dict[str, Range]:
        """Of the inputs of the linear layers: of a text, else what the training learned."""
        plain, models = self._plain, self._models
        if options.calibration is not None:
            return find_ranges(plain, models, self._segmenter, options.calibration, options.search)
        if not plain.ranges:
            raise ConfigError(
                f"--calibration: must be given with --quantization {CALIBRATED}, as the training of "
                f"{options.checkpoint} learned no ranges of activations"
            )
        layers = [name for name, module in plain.model.named_modules() if isinstance(module, nn.Linear)]
        if missing := [name for name in layers if name not in plain.ranges]:
            raise ConfigError(
                f"--calibration: must be given with --quantization {CALIBRATED}, as the training of "
                f"{options.checkpoint} learned no range of {missing[0]}" + (", and others" if missing[1:] else "")
            )
        return learned_ranges(plain.ranges)

    def check_pieces(self) -> list[list[str]]:
        """The sentences of the check, cut into pieces."""
        return [] if self._check is None else self._check.pieces()


def export(options: ExportOptions, output: PathLike, check: CheckOptions | None) -> ModelDirectory:
    """Write a model directory.

    Args:
        output: the directory, which must not be there yet.
        check: see :class:`Exporter`.

    Raises:
        ConfigError, CheckpointError, CheckError: as :class:`Exporter`; or the output is there. Nothing is left then.
    """
    exporter = Exporter(options, check)
    return create_directory(output, lambda folder: exporter.fill(folder, options))


def describe(options: ExportOptions, models: LoadedModels, plain: Materialized) -> dict[str, Any]:
    """The metadata but for files and check, as JSON can hold them."""
    updates = plain.state["optimizer_history"][-1]["num_updates"]
    return {
        "made_by": f"fairseq-compress {fairseq_compress.__version__}",
        "runtime": options.runtime,
        "runtime_version": _format(options.runtime).VERSION,
        "quantization": options.quantization,
        "languages": {"source": models.source_lang, "target": models.target_lang},
        "vocabulary": {
            "source_entries": len(models.source),
            "target_entries": len(models.target),
            **{
                name.replace(".model", "_sha256"): file_sha256(path)
                for name, path in _sentencepiece_files(options).items()
            },
            **{name: models.facts[name] for name in ("source_dictionary", "target_dictionary")},
        },
        "positions": {"source": models.max_source_positions, "target": models.max_target_positions},
        "architecture": plain.values,
        "parameters": count_parameters(plain.state["model"]),
        "checkpoint_sha256": models.facts["checkpoints"][0],
        "training": {"updates": updates, **_training(plain.state["cfg"])},
        "search": {name: getattr(options.search, name) for name in options.search.__dataclass_fields__},
        "licence": options.licence,
    }


def _format(runtime: str) -> ModuleType:
    """The module that writes the files of a runtime, which is imported only when it is asked for."""
    return importlib.import_module(f"fairseq_compress.export.{runtime}_format")


_TRAINING = {
    "optimization": ("max_epoch", "max_update", "lr", "update_freq", "clip_norm"),
    "dataset": ("max_tokens", "batch_size"),
    "common": ("seed", "fp16"),
}


def _training(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a reader of a paper would ask for."""
    found: dict[str, Any] = {"criterion": cfg.get("criterion"), "optimizer": cfg.get("optimizer")}
    for group, keys in _TRAINING.items():
        values = cfg.get(group) or {}
        found |= {key: values[key] for key in keys if values.get(key) is not None}
    return found


def _sentencepiece_files(options: ExportOptions) -> dict[str, PathLike]:
    """Name in the directory -> file, for one model of both sides or one of each."""
    if options.target_sentencepiece_model is None:
        return {VOCABULARY: options.sentencepiece_model}
    models = (options.sentencepiece_model, options.target_sentencepiece_model)
    return dict(zip(VOCABULARIES.values(), models, strict=True))
