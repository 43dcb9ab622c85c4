"""``--runtime auto``: export to every runtime, and keep the fastest for this model on this machine."""

import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairseq_compress import runtimes
from fairseq_compress.decoding.search_model import SubwordTranslator
from fairseq_compress.errors import CheckError, CheckpointError, ConfigError
from fairseq_compress.export.exporter import Exporter
from fairseq_compress.export.model_writer import create_directory
from fairseq_compress.export.options import CALIBRATED, OBJECTIVES, CheckOptions, ExportOptions
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.system import default_threads
from fairseq_compress.work.files import PathLike

ROUNDS = 3
SENTENCES = {"batches": 256, "sentence": 24}


def candidates(options: ExportOptions) -> list[ExportOptions]:
    """The exports to compare: of one quantization or of all; calibrated ones only with a calibration text."""
    found = []
    for name, runtime in runtimes.exported().items():
        for kind in runtime.automatic:
            wanted = kind == options.quantization if options.quantization else kind != CALIBRATED or options.calibration
            if wanted:
                text = options.calibration if kind == CALIBRATED else None
                found.append(
                    replace(options, runtime=name, optimize_for="batches", quantization=kind, calibration=text)
                )
    return found


def export_fastest(options: ExportOptions, output: PathLike, check: CheckOptions) -> ModelDirectory:
    """Write the model directory of the fastest candidate that passes the check, with the timings of all."""
    if check.no_check:
        raise ConfigError("--runtime auto: requires --source and --reference, which it times too")
    tried = candidates(options)
    exporter = Exporter(options, check)
    assert exporter.check is not None
    sentences = exporter.check.subwords()

    def fill(folder: Path) -> dict[str, Any]:
        results: list[dict[str, Any]] = []
        whole: dict[int, dict[str, Any]] = {}
        models: dict[int, SubwordTranslator] = {}
        for number, each in enumerate(tried):
            place = folder / str(number)
            place.mkdir()
            results.append({"runtime": each.runtime, "quantization": each.quantization})
            try:
                whole[number], opened = exporter.fill(place, each)
            except (CheckError, CheckpointError, ConfigError) as error:
                results[number]["dropped"] = str(error)
                continue
            assert opened is not None
            models[number] = opened.translator
            size = sum(file.stat().st_size for file in place.rglob("*"))
            results[number] |= {"bytes": size, "bleu_difference": whole[number]["check"]["bleu"]["difference"]}
        if not models:
            raise CheckError(f"--runtime auto: nothing fits: {'; '.join(result['dropped'] for result in results)}")
        for number, found in _measure(models, sentences).items():
            results[number] |= found
        objective = options.optimize_for
        speed = OBJECTIVES[objective]
        best = (min if objective == "sentence" else max)(models, key=lambda number: results[number][speed])
        models.clear()
        for file in (folder / str(best)).iterdir():
            file.rename(folder / file.name)
        for number in range(len(tried)):
            shutil.rmtree(folder / str(number))
        return whole[best] | {"auto": {"objective": objective, "cores": default_threads(), "candidates": results}}

    return create_directory(output, fill)


def _measure(models: dict[int, SubwordTranslator], sentences: list[list[str]]) -> dict[int, dict[str, float]]:
    """Sentences a second, all at once, and milliseconds of one sentence alone; medians of interleaved rounds."""
    many, single = sentences[: SENTENCES["batches"]], sentences[: SENTENCES["sentence"]]
    rates: dict[int, list[float]] = {number: [] for number in models}
    delays: dict[int, list[float]] = {number: [] for number in models}
    for model in models.values():
        model.translate(many[:32])
        model.translate(single[:1])
    for _ in range(ROUNDS):
        for number, model in models.items():
            rates[number].append(len(many) / _seconds(model, many))
            delays[number] += [1000 * _seconds(model, [sentence]) for sentence in single]
    return {
        number: {
            "sentences_per_second": round(statistics.median(rates[number]), 2),
            "ms_per_sentence": round(statistics.median(delays[number]), 3),
        }
        for number in models
    }


def _seconds(model: SubwordTranslator, sentences: list[list[str]]) -> float:
    begin = time.perf_counter()
    model.translate(sentences)
    return time.perf_counter() - begin
