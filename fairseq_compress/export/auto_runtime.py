"""Which runtime is the fastest for this model, on this machine? All are exported, checked and timed; the best stays."""

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairseq_compress.decoding.translation_lines import PieceTranslator
from fairseq_compress.errors import CheckError, ConfigError
from fairseq_compress.export.exporter import Exporter, ExportOptions
from fairseq_compress.export.model_writer import create_directory
from fairseq_compress.export.self_check import CheckOptions
from fairseq_compress.runtimes.model_directory import FORMAT, ModelDirectory
from fairseq_compress.runtimes.open_model import open_model
from fairseq_compress.system import default_threads
from fairseq_compress.work.files import PathLike

CANDIDATES = (
    ("onnx", "float32"),
    ("onnx", "int8"),
    ("onnx", "int8_calibrated"),
    ("ctranslate2", "float32"),
    ("ctranslate2", "int8"),
)
OBJECTIVES = {"batches": "sentences_per_second", "sentence": "ms_per_sentence"}
ROUNDS = 3
SENTENCES = {"batches": 256, "sentence": 24}


def candidates(
    options: ExportOptions, quantization: str | None = None, calibration: PathLike | None = None
) -> list[ExportOptions]:
    """The exports that are tried.

    Args:
        options: of all of them; what they say of runtime and quantization is replaced.
        quantization: the only one; None: all, ``int8_calibrated`` only where there is a calibration text.
        calibration: that text.

    Raises:
        ConfigError: no runtime has the quantization.
    """
    found = []
    for runtime, kind in CANDIDATES:
        calibrated = kind == "int8_calibrated"
        if quantization in (None, kind) and not (calibrated and quantization is None and calibration is None):
            text = calibration if calibrated else None
            found.append(replace(options, runtime=runtime, quantization=kind, calibration=text))
    if not found:
        known = ", ".join(dict.fromkeys(kind for _, kind in CANDIDATES))
        raise ConfigError(f"--quantization: must be one of {known} with --runtime auto, got {quantization}")
    return found


def export_fastest(
    tried: list[ExportOptions], output: PathLike, check: CheckOptions, objective: str = "batches"
) -> ModelDirectory:
    """Write the model directory of the fastest candidate that loses no more BLEU than it may.

    All are timed in turns, three rounds of the check's sentences; the medians of all, and why some were dropped, are
    in the metadata.

    Args:
        objective: a key of :data:`OBJECTIVES`.

    Raises:
        ConfigError: no runtime holds the model.
        CheckError: all lose too much.
    """
    exporter = Exporter(tried[0], check)
    results: list[dict[str, Any]] = []

    def fill(folder: Path) -> dict[str, Any]:
        whole: dict[int, dict[str, Any]] = {}
        models: dict[int, PieceTranslator] = {}
        for number, options in enumerate(tried):
            place = folder / str(number)
            place.mkdir()
            result: dict[str, Any] = {"runtime": options.runtime, "quantization": options.quantization}
            results.append(result)
            try:
                metadata = whole[number] = exporter.fill(place, options)
            except (CheckError, ConfigError) as error:
                result["dropped"] = str(error)
                continue
            files = sum(file.stat().st_size for file in place.rglob("*"))
            result |= {"bytes": files, "bleu_difference": metadata["check"]["bleu"]["difference"]}
            models[number] = open_model(ModelDirectory(place, {"format": FORMAT, **metadata}), options.search)
        if not models:
            raise CheckError(f"--runtime auto: nothing fits: {'; '.join(result['dropped'] for result in results)}")
        for number, found in _measure(models, exporter.check_pieces()).items():
            results[number] |= found
        key = OBJECTIVES[objective]
        sign = 1 if objective == "sentence" else -1
        best = min(models, key=lambda number: sign * results[number][key])
        models.clear()
        _keep(folder, str(best), len(tried))
        return whole[best] | {"auto": {"objective": objective, "cores": default_threads(), "candidates": results}}

    return create_directory(output, fill)


def _measure(models: dict[int, PieceTranslator], sentences: list[list[str]]) -> dict[int, dict[str, float]]:
    """Sentences a second, all at once, and milliseconds of one sentence alone; medians of interleaved rounds."""
    many, single = sentences[: SENTENCES["batches"]], sentences[: SENTENCES["sentence"]]
    rates: dict[int, list[float]] = {number: [] for number in models}
    delays: dict[int, list[float]] = {number: [] for number in models}
    for model in models.values():
        model.translate(many[:32])
        model.translate(single[:1])
    for _ in range(ROUNDS):
        for number, model in models.items():
            begin = time.perf_counter()
            model.translate(many)
            rates[number].append(len(many) / (time.perf_counter() - begin))
            for sentence in single:
                begin = time.perf_counter()
                model.translate([sentence])
                delays[number].append(1000 * (time.perf_counter() - begin))
    return {
        number: {
            "sentences_per_second": round(statistics.median(rates[number]), 2),
            "ms_per_sentence": round(statistics.median(delays[number]), 3),
        }
        for number in models
    }


def _keep(folder: Path, chosen: str, count: int) -> None:
    """Of the candidates' folders only the files of the chosen one, moved up."""
    for file in (folder / chosen).iterdir():
        file.rename(folder / file.name)
    for number in range(count):
        place = folder / str(number)
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
