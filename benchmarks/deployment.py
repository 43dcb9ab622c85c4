"""What a trained checkpoint becomes in each runtime and quantization: bytes, quality, independence, speed, memory.

    python benchmarks/deployment.py --model NAME=CHECKPOINT --data DATA_BIN --sentencepiece-model M --source TEXT
        --reference TEXT --calibration TEXT --json FOLDER [--rows "onnx int*"] [--plans int4 ipq-20x] [--beam 5]
        [--no-timing | --only-timing] [--rounds 5] [--work DIR]

A row is a runtime and a quantization: ``torch float32`` is the checkpoint, ``torch packed PLAN`` what ``quantize``
writes (PLAN ``own``: the checkpoint's), ``onnx plan PLAN`` the export of that, others the export of the checkpoint.
Rows of runtimes that are not installed, and models that a runtime refuses, are recorded with the reason.

Quality, of the whole text at --beam (greedy runtimes at 1): BLEU and chrF2 with signatures, sentences equal to those of
the checkpoint, sentences whose text or whose score (to the last bit) differs between translation alone and with the
whole text, and the peak of the process's memory. Bytes are those of the directory without the SentencePiece model. All
that is valid on a busy machine. Timings are not: run --only-timing on an idle one. They are taken in rounds over all
rows, each value in a process of its own: ``one``, the median of sentences translated alone in ms; ``batches``,
sentences a second over the whole text; ``first``, seconds from the start of ``fairseq-compress translate`` to the first
translation.

FOLDER gets one file for each row; what is there is not measured again. ``deployment_tables.py`` makes tables of them.
"""

import argparse
import datetime
import fnmatch
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from sacrebleu.metrics import BLEU, CHRF

from fairseq_compress import runtimes
from fairseq_compress.corpus.bleu_tokenizer import bleu_tokenizer

BIN = Path(sys.executable).parent
JOBS = Path(__file__).with_name("deployment_jobs.py")
BEAMS = (1, 4)
PACKAGES = ("onnxruntime", "ctranslate2", "torch", "fxtranslate")
Json = dict[str, Any]


def rows(plans: list[str]) -> Iterator[str]:
    """All rows in the order of the table."""
    yield "torch float32"
    yield from (f"torch packed {plan}" for plan in plans)
    for name, runtime in runtimes.exported().items():
        kinds = runtime.quantizations if name != "ctranslate2" else runtime.automatic
        yield from (f"{name} {kind}" for kind in kinds if kind != "plan")
        if "plan" in runtime.quantizations:
            yield from (f"{name} plan {plan}" for plan in plans)


def call(*command: object, threads: int | None = 1) -> str:
    """Standard output; ``threads`` None: as many as there are cores."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"WANDB_MODE": "disabled"} | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    result = subprocess.run(list(map(str, command)), env=environment, text=True, capture_output=True)
    if result.returncode:
        raise RuntimeError((result.stderr.strip().splitlines() or [f"status {result.returncode}"])[-1])
    return result.stdout


def make(args: argparse.Namespace, name: str, row: str) -> Path:
    """The checkpoint, packed file or directory of a row; made if it is not there."""
    runtime, *kind = row.split()
    own, checkpoint = args.work / name, args.models[name]
    own.mkdir(parents=True, exist_ok=True)
    if kind == ["float32"] and runtime == "torch":
        return checkpoint
    if kind[0] in ("packed", "plan"):
        packed = own / f"{kind[1]}.safetensors"
        if not packed.exists():
            call(BIN / "fairseq-compress", "quantize", checkpoint, packed,
                 *(() if kind[1] == "own" else ("--plan", kind[1])))  # fmt: skip
        if runtime == "torch":
            return packed
        checkpoint = packed
    output = own / row.replace(" ", "-")
    if not output.exists():
        more = ["--calibration", args.calibration] if kind[0] == "int8_calibrated" else []
        call(BIN / "fairseq-compress", "export", checkpoint, output, "--data", args.data, "--runtime", runtime,
             "--sentencepiece-model", args.sentencepiece_model, "--quantization", kind[0], "--no-check", "--beam",
             beam_of(runtime, args.beam), *more)  # fmt: skip
    return output


def beam_of(runtime: str, beam: int) -> int:
    """The beam of a runtime that may be greedy."""
    return getattr(runtimes.RUNTIMES[runtime], "search", {}).get("beam", beam)


def job_of(args: argparse.Namespace, path: Path, scenario: str, beam: int) -> Json:
    shared = {"source": str(args.source), "data": str(args.data), "sentencepiece": str(args.sentencepiece_model)}
    return shared | {"path": str(path), "is_file": path.is_file(), "scenario": scenario, "beam": beam}


def sizes(path: Path) -> Json:
    """Bytes, and of a directory what its metadata tell of the weights."""
    if path.is_file():
        return {"bytes": path.stat().st_size}
    facts = json.loads((path / "metadata.json").read_text(encoding="utf-8"))
    files = {file.name: file.stat().st_size for file in path.iterdir()}
    counted = sum(size for file, size in files.items() if "sentencepiece" not in file)
    found = {"bytes": counted, "files": files, "parameters": facts["parameters"]}
    return found | {key: facts[key] for key in ("forms", "stored_dense") if facts.get(key)}


def measure_quality(args: argparse.Namespace, name: str, row: str, expected: list[str] | None) -> Json:
    """A row without timings; ``expected`` are the outputs of the checkpoint."""
    path, beam = make(args, name, row), beam_of(row.split()[0], args.beam)
    found = json.loads(call(sys.executable, JOBS,
                            json.dumps(job_of(args, path, "quality", beam))).splitlines()[-1])  # fmt: skip
    outputs, references = found.pop("outputs"), args.reference.read_text(encoding="utf-8").splitlines()
    (args.work / name / f"{row.replace(' ', '-')}.out").write_text("\n".join(outputs) + "\n", encoding="utf-8")
    for key, metric in (("bleu", BLEU(tokenize=bleu_tokenizer(args.target_lang).name)), ("chrf2", CHRF())):
        score = metric.corpus_score(outputs, [references]).score
        found[key] = {"score": round(score, 3), "signature": str(metric.get_signature())}
    equal = sum(map(str.__eq__, outputs, outputs if expected is None else expected))
    return {"beam": beam, "sentences": len(outputs), "equal": equal} | found | sizes(path)


def seconds_to_first(args: argparse.Namespace, path: Path, beam: int) -> float:
    """From the start of the command to its first translation."""
    line = min(args.source.read_bytes().splitlines(), key=lambda line: abs(len(line) - 60))
    more = ["--data", args.data, "--sentencepiece-model", args.sentencepiece_model] if path.is_file() else []
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    command = [BIN / "fairseq-compress", "translate", path, "--beam", beam, *more]
    begin = time.perf_counter()
    with subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=environment | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": ""},
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + b"\n")
        process.stdin.close()
        process.stdout.readline()
        seconds = time.perf_counter() - begin
    if process.returncode:
        raise RuntimeError(f"translate ended with status {process.returncode}")
    return seconds


def measure_timings(args: argparse.Namespace, every: list[tuple[str, str]]) -> None:
    """Add to the files of the rows one value a round of each scenario."""
    scenarios = [*((kind, beam) for kind in ("one", "batches") for beam in BEAMS), ("first", 1)]
    order = [each for each in every if "refused" not in read(args, *each)]
    for number in range(args.rounds):
        for scenario, beam in scenarios:
            order.append(order.pop(0))  # caches and other programs disturb all alike
            for name, row in order:
                found = read(args, name, row)
                values = found.setdefault("timing", {}).setdefault(f"{scenario}, beam {beam}", [])
                if len(values) > number or beam_of(row.split()[0], beam) != beam:
                    continue
                path = make(args, name, row)
                if scenario == "first":
                    value = seconds_to_first(args, path, beam)
                else:
                    job = json.dumps(job_of(args, path, scenario, beam))
                    value = float(call(sys.executable, JOBS, job, threads=None).splitlines()[-1])
                values.append(round(value, 4))
                write(args, name, row, found | {"timed_on": facts_of_machine()})
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)


def facts_of_machine() -> Json:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii") if Path("/proc/cpuinfo").exists() else ""
    model = next((line.partition(": ")[2] for line in flags.splitlines() if line.startswith("model name")), "")
    known = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if f" {flag} " in flags]
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"date": str(datetime.date.today()), "processor": model or platform.machine(), "instructions": known,
            "cores": cores, "load": round(os.getloadavg()[0], 1), "versions": versions}  # fmt: skip


def file_of(args: argparse.Namespace, name: str, row: str) -> Path:
    return args.json / f"{name}-{row.replace(' ', '-')}.json"


def read(args: argparse.Namespace, name: str, row: str) -> Json:
    path = file_of(args, name, row)
    found: Json = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def write(args: argparse.Namespace, name: str, row: str, found: Json) -> None:
    path = file_of(args, name, row)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"model": name, "row": row} | found, indent=1) + "\n", encoding="utf-8")
    temporary.rename(path)


def measure_all_quality(args: argparse.Namespace, every: list[tuple[str, str]]) -> None:
    for name, row in every:
        if read(args, name, row):
            continue
        file = args.work / name / "torch-float32.out"
        expected = file.read_text(encoding="utf-8").splitlines() if file.exists() else None
        try:
            found = measure_quality(args, name, row, expected)
        except (RuntimeError, ValueError) as error:
            found = {"refused": str(error)}
        write(args, name, row, found | {"measured_on": facts_of_machine()})
        told = {key: found.get(key) for key in ("bytes", "bleu", "equal", "differ_alone", "refused") if key in found}
        print(name, row, told, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=CHECKPOINT", help="may be repeated")
    for name in ("--data", "--sentencepiece-model", "--source", "--reference", "--calibration"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--target-lang", default="cs")
    parser.add_argument("--rows", nargs="+", default=["*"], metavar="PATTERN", help="names of rows, with * and ?")
    parser.add_argument("--plans", nargs="*", default=["int8", "int4"], help="of quantize; own: the checkpoint's")
    parser.add_argument("--beam", type=int, default=5, help="of the quality")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for models and outputs")
    parser.add_argument("--json", type=Path, required=True, metavar="FOLDER")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--no-timing", action="store_true")
    which.add_argument("--only-timing", action="store_true")
    args = parser.parse_args()
    args.models = {name: Path(path) for name, _, path in (each.partition("=") for each in args.model)}
    args.json.mkdir(parents=True, exist_ok=True)
    wanted = [row for row in rows(args.plans) if any(fnmatch.fnmatch(row, pattern) for pattern in args.rows)]
    every = [(name, row) for name in args.models for row in wanted]
    if not args.only_timing:
        measure_all_quality(args, every)
    if not args.no_timing:
        measure_timings(args, every)


if __name__ == "__main__":
    main()
