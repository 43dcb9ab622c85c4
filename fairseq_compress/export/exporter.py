"""Export of a checkpoint to a model directory, which is verified against the checkpoint before it is written."""

import importlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import fairseq_compress
from fairseq_compress import runtimes
from fairseq_compress.checkpoint.average import count_parameters
from fairseq_compress.checkpoint.materialize import Materialized
from fairseq_compress.decoding.shortlist_file import ShortlistFile, read_shortlist
from fairseq_compress.errors import ConfigError
from fairseq_compress.export.model_writer import TextSide, create_directory, refuse
from fairseq_compress.export.onnx.precisions import Storage
from fairseq_compress.export.onnx_linear import Range
from fairseq_compress.export.options import CALIBRATED, DEFAULT_GROUP_SIZES, PLANNED, CheckOptions, ExportOptions
from fairseq_compress.export.self_check import SelfCheck
from fairseq_compress.export.shortlist_effect import cautions, compare_without
from fairseq_compress.export.stored_weights import StoredWeights, packed_weights
from fairseq_compress.runtimes.model_directory import FORMAT, ModelDirectory, segmentation_files
from fairseq_compress.runtimes.opened import OpenedModel
from fairseq_compress.runtimes.options import RuntimeOptions
from fairseq_compress.runtimes.torch.model import TorchModel
from fairseq_compress.weights.packed import Packed
from fairseq_compress.work.files import PathLike, file_sha256

_TRAINING = {  # options of the training that go into the metadata
    "optimization": ("max_epoch", "max_update", "lr", "update_freq", "clip_norm"),
    "dataset": ("max_tokens", "batch_size"),
    "common": ("seed", "fp16"),
}


class Exporter:
    """A checkpoint, loaded once, for exports of several kinds; ``options`` are those common to all kinds."""

    def __init__(self, options: ExportOptions, check: CheckOptions) -> None:
        path = options.checkpoint
        if ":" in path or os.path.isdir(path):
            raise ConfigError(f"--checkpoint: must be one model, no ensemble and no directory, got {path}")
        self._options, self._search = options, asdict(options.search)
        self._original = runtimes.open(
            path, RuntimeOptions(self._search, data=options.data, segmentation=options.segmentation, device="cpu")
        )
        assert isinstance(self._original.translator, TorchModel)
        self._models = self._original.translator.loaded
        self._prepared: dict[Any, Materialized] = {}
        self._packed: dict[str, Packed] | None = None
        self.check = None if check.no_check else SelfCheck(self._original, check)

    def fill(self, folder: Path, options: ExportOptions) -> tuple[dict[str, Any], OpenedModel | None]:
        """Write the files into an existing folder and verify them; return the metadata and the verified model."""
        plain, models, quantization = self._model(options), self._models, str(options.quantization)
        writer = _writer(options.runtime)
        refuse(options.runtime, writer.why_not(plain.values))
        ranges = self._ranges(options) if quantization == CALIBRATED else {}
        group_size = options.group_size or DEFAULT_GROUP_SIZES.get(quantization, 32)
        storage = Storage(
            self._stored(quantization), ranges, group_size, options.asymmetric, options.encoder_quantization
        )
        for name, path in segmentation_files(options.segmentation).items():
            shutil.copyfile(path, folder / name)
        shortlist = self._shortlist(options.shortlist)
        text = TextSide((models.source_lang, models.target_lang), options.segmentation, shortlist)
        own = writer.write_model(
            folder, plain.model, plain.values, models.source, models.target, quantization, storage, text
        )
        metadata = self._describe(options, shortlist) | {options.runtime: own, "check": None}
        if forms := storage.stored.forms():
            metadata["forms"] = forms
        if self.check is None:
            return metadata, None
        directory = ModelDirectory(folder, {"format": FORMAT, **metadata})
        exported = runtimes.open(directory, RuntimeOptions(self._search))
        found = self.check.compare(exported, quantization)
        if shortlist is not None:
            effect = compare_without(exported, self.check)
            found |= {"shortlist": effect, "cautions": [*found["cautions"], *cautions(effect)]}
        return metadata | {"check": found}, exported

    def _shortlist(self, path: str | None) -> ShortlistFile | None:
        if path is None:
            return None
        file = read_shortlist(path)
        file.check_dictionaries(self._models.facts, (len(self._models.source), len(self._models.target)))
        return file

    def _model(self, options: ExportOptions) -> Materialized:
        """The model as the writer of its runtime takes it, loaded once for each way."""
        load = _writer(options.runtime).load
        if load not in self._prepared:
            self._prepared[load] = load(self._options.checkpoint)
        return self._prepared[load]

    def _stored(self, quantization: str) -> StoredWeights:
        """The compressed weights of the checkpoint, of which nothing is recorded yet."""
        path = self._options.checkpoint
        if self._packed is None:
            self._packed = packed_weights(path)
        if quantization == PLANNED and not self._packed:
            raise ConfigError(
                f"--quantization {PLANNED}: requires a model with a compression plan for weights, {path} has none"
            )
        return StoredWeights(self._packed)

    def _ranges(self, options: ExportOptions) -> dict[str, Range]:
        """Of the inputs of the linear layers: from the calibration text, else those learned in training."""
        plain = self._model(options)
        calibration = importlib.import_module(runtimes.RUNTIMES[options.runtime].calibration)
        if options.calibration is not None:
            assert self._original.segmenter is not None
            found: dict[str, Range] = calibration.find_ranges(
                plain, self._models, self._original.segmenter, options.calibration, options.search
            )
            return found
        learned: dict[str, Range] = calibration.learned_ranges(plain.ranges)
        if missing := [name for name in calibration.quantized_inputs(plain, self._models) if name not in learned]:
            which = f"no range of {missing[0]}" if learned else "no ranges of activations"
            raise ConfigError(
                f"--calibration: must be given with --quantization {CALIBRATED}, as the training of "
                f"{options.checkpoint} learned {which}" + (", and others" if learned and missing[1:] else "")
            )
        return learned

    def _describe(self, options: ExportOptions, shortlist: ShortlistFile | None) -> dict[str, Any]:
        """The metadata except files and check."""
        models, plain = self._models, self._model(options)
        state = plain.state
        segmentation, files = options.segmentation, segmentation_files(options.segmentation)
        checksums = {re.sub(r"\.\w+$", "_sha256", name): file_sha256(path) for name, path in files.items()}
        return {
            "made_by": f"fairseq-compress {fairseq_compress.__version__}",
            "runtime": options.runtime,
            "runtime_version": _writer(options.runtime).VERSION,
            "quantization": options.quantization,
            **({"encoder_quantization": encoder} if (encoder := options.encoder_quantization) else {}),
            "languages": {"source": models.source_lang, "target": models.target_lang},
            "vocabulary": {
                "source_entries": len(models.source),
                "target_entries": len(models.target),
                **checksums,
                **{name: models.facts[name] for name in ("source_dictionary", "target_dictionary")},
            },
            **({} if segmentation.is_plain else {"segmentation": segmentation.facts()}),
            "positions": {"source": models.max_source_positions, "target": models.max_target_positions},
            "architecture": plain.values,
            "stored_dense": plain.lost,
            "parameters": count_parameters(state["model"]),
            "checkpoint_sha256": models.facts["checkpoints"][0],
            "training": {"updates": state["optimizer_history"][-1]["num_updates"], **_training(state["cfg"])},
            "search": self._search,
            "licence": options.licence,
            **({} if shortlist is None else {"shortlist": shortlist.facts()}),
        }


def export(options: ExportOptions, output: PathLike, check: CheckOptions) -> ModelDirectory:
    """Write a model directory to ``output``, which must not exist."""
    exporter = Exporter(options, check)
    return create_directory(output, lambda folder: exporter.fill(folder, options)[0])


def _writer(runtime: str) -> ModuleType:
    """The module that writes the files of a runtime."""
    return importlib.import_module(runtimes.RUNTIMES[runtime].writer)


def _training(cfg: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"criterion": cfg.get("criterion"), "optimizer": cfg.get("optimizer")}
    for group, keys in _TRAINING.items():
        values = cfg.get(group) or {}
        found |= {key: values[key] for key in keys if values.get(key) is not None}
    return found
