"""Translation of a fixed length on a CPU: stock fairseq, CTranslate2 at its best, and exported models, in one run.

    python benchmarks/translate.py [--arch transformer] [--vocabulary 8000] [--length 20] [--beams 1 4]
        [--quantizations float32 int8] [--work DIR] [--json FILE] [--quick]
    python benchmarks/translate.py --checkpoint C.pt --data DATA_BIN --sentencepiece-model M --source PIECES ...

Without a checkpoint the weights are random, as fairseq initializes them, and the sources are random subwords. All
decode LENGTH + 1 steps: fairseq and the exported models LENGTH tokens and a forced EOS (min_len = max_len = LENGTH),
CTranslate2 LENGTH + 1 tokens without EOS (min = max_decoding_length = LENGTH + 1). Every process checks its output.

Every figure comes from a separate process, which loads the model, warms up and is then timed. Settings (threads,
batches) are tuned for each contestant, scenario and beam; the best are measured in interleaved rounds. fairseq's
batches are made beforehand, and CTranslate2 computes no scores: both are to their advantage. The scenarios are
``batches``, all sentences at once; ``one``, one sentence at a time; ``first``, from the start of the command
``fairseq-compress translate`` (for fairseq: ``fairseq-interactive``) to the translation of one line of at most LENGTH
tokens. The folder --work keeps the checkpoint and the exported models, which later runs reuse. The machine must be
idle: other work makes fairseq with several threads many times slower, and the others less so.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CORES = len(os.sched_getaffinity(0))
UNITS = {"batches": "sentences/s", "one": "ms", "first": "s"}
PEERS = ("fairseq float32", "CTranslate2 float32", "CTranslate2 int8")
Sentences = list[list[str]]
Prepare = Callable[[Sentences], Callable[[], Sentences]]


# In a process of its own: each loads a model; the result prepares sentences, and the result of that translates them.


def with_fairseq(job: dict[str, Any]) -> Prepare:
    import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq
    import torch
    from fairseq.data import Dictionary, data_utils
    from fairseq.sequence_generator import SequenceGenerator

    import fairseq_compress
    from fairseq_compress.checkpoint.materialize import materialize

    fairseq_compress.register()
    torch.set_num_threads(job["setting"]["threads"])
    source, target = (Dictionary.load(f"{job['data']}/dict.{language}.txt") for language in job["pair"])
    model = materialize(job["model"]).model  # fairseq's own class
    model.make_generation_fast_(beamable_mm_beam_size=job["beam"], need_attn=False)  # as fairseq-generate does
    length, limit = job["length"], job["setting"].get("max_tokens", 0)
    generator = SequenceGenerator([model], target, beam_size=job["beam"], max_len_b=length, min_len=length)

    def prepare(sentences: Sentences) -> Callable[[], Sentences]:
        ids = [torch.tensor([*map(source.index, sentence), source.eos()]) for sentence in sentences]
        batches: list[list[int]] = []
        for place in sorted(range(len(ids)), key=lambda place: len(ids[place])):  # so the newest one is the longest
            if not batches or (len(batches[-1]) + 1) * len(ids[place]) > limit:
                batches.append([])
            batches[-1].append(place)
        tokens = [data_utils.collate_tokens([ids[i] for i in batch], source.pad(), left_pad=True) for batch in batches]
        lengths = [torch.tensor([len(ids[place]) for place in batch]) for batch in batches]

        def translate() -> Sentences:
            found: Sentences = [[] for _ in ids]
            for batch, *both in zip(batches, tokens, lengths, strict=True):
                sample = {"net_input": dict(zip(("src_tokens", "src_lengths"), both, strict=True))}
                for place, hypotheses in zip(batch, generator.generate([model], sample), strict=True):
                    *best, last = hypotheses[0]["tokens"].tolist()
                    assert last == target.eos()
                    found[place] = [target[token] for token in best]
            return found

        return translate

    return prepare


def with_ctranslate2(job: dict[str, Any]) -> Prepare:
    import ctranslate2

    workers, threads = job["setting"]["inter x intra"]
    model = ctranslate2.Translator(job["model"], device="cpu", inter_threads=workers, intra_threads=threads)
    options = {"beam_size": job["beam"], "max_input_length": 0, "return_end_token": True, "batch_type": "tokens"}
    options |= dict.fromkeys(("min_decoding_length", "max_decoding_length"), job["length"] + 1)
    options["max_batch_size"] = job["setting"].get("max_batch_size", 0)
    return lambda sentences: lambda: [found.hypotheses[0] for found in model.translate_batch(sentences, **options)]


def with_onnx(job: dict[str, Any]) -> Prepare:
    from fairseq_compress import runtimes
    from fairseq_compress.runtimes.options import RuntimeOptions

    search = {"beam": job["beam"], "max_len_a": 0, "max_len_b": job["length"], "min_len": job["length"]}
    model = runtimes.open(job["model"], RuntimeOptions(search, threads=job["setting"]["threads"])).translator
    return lambda sentences: lambda: [found[0].output for found in model.translate(sentences)]


SYSTEMS = {"fairseq": with_fairseq, "CTranslate2": with_ctranslate2, "onnx": with_onnx}


def do(job: dict[str, Any]) -> None:
    """Of ``batches`` the speed, of ``one`` the time, over as many passes as fill the wanted seconds."""
    lines = Path(job["source"]).read_text(encoding="utf-8").splitlines()
    sentences = [line.split() for line in lines if line.strip()][: job["sentences"]]
    system, alone = job["contestant"].split()[0], job["scenario"] == "one"
    prepare = SYSTEMS[system](job)
    units = [prepare([sentence]) for sentence in sentences] if alone else [prepare(sentences)]
    for unit in units[:10]:
        unit()
    seconds: list[float] = []
    while not seconds or sum(seconds) < job["seconds"]:
        outputs: Sentences = []
        for unit in units:
            begin = time.perf_counter()
            found = unit()
            seconds.append(time.perf_counter() - begin)
            outputs += found
    wanted = job["length"] + (system == "CTranslate2")
    if (lengths := {len(output) for output in outputs}) != {wanted}:
        raise SystemExit(f"{job['contestant']}: every translation must have {wanted} tokens, got {sorted(lengths)}")
    median = statistics.median(seconds)
    value = 1000 * median if alone else len(sentences) / median
    print(json.dumps({"value": value, "outputs": [output[: job["length"]] for output in outputs]}))


# In the process that one starts.


def call(*command: object) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["WANDB_MODE"] = "disabled"
    result = subprocess.run(list(map(str, command)), env=environment, text=True, capture_output=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
    return result.stdout


def plain(pieces: str) -> str:
    return pieces.replace(" ", "").replace("\N{LOWER ONE EIGHTH BLOCK}", " ")


def make_random(args: argparse.Namespace, folder: Path) -> None:
    """A sentencepiece model, dictionaries, sources, and a checkpoint after one update with a learning rate of 0."""
    args.checkpoint, args.data = folder / "checkpoint_last.pt", folder / "bin"
    args.sentencepiece_model, args.source = folder / "spm.model", folder / "source"
    draw = random.Random(args.seed)
    if not args.checkpoint.exists():
        folder.mkdir(parents=True, exist_ok=True)
        words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(20000)]
        lines = [" ".join(words[start : start + 10]) + "\n" for start in range(0, len(words), 10)]
        for name, count in {"text": len(lines), "text.xx": 50, "text.yy": 50}.items():
            (folder / name).write_text("".join(lines[:count]))
        call(
            BIN / "fairseq-compress", "train-vocabulary", "--input", folder / "text", "--output", folder / "spm",
            "--vocab-size", args.vocabulary - 1,  # sentencepiece has 3 symbols, fairseq 4
        )  # fmt: skip
        call(
            BIN / "fairseq-preprocess", "-s", "xx", "-t", "yy", "--trainpref", folder / "text", "--validpref",
            folder / "text", "--joined-dictionary", "--srcdict", folder / "spm.dict.txt", "--destdir", args.data,
        )  # fmt: skip
        call(
            BIN / "fairseq-train", args.data, "--user-dir", ROOT / "fairseq_compress", "--task", "translation", "--cpu",
            "--arch", args.arch, "--share-all-embeddings", "--optimizer", "adam", "--lr", 0, "--max-tokens", 200,
            "--max-update", 1, "--seed", args.seed, "--disable-validation", "--no-epoch-checkpoints", "--num-workers",
            0, "--save-dir", folder, "-s", "xx", "-t", "yy",
        )  # fmt: skip
    rows = (folder / "spm.dict.txt").read_text(encoding="utf-8").splitlines()
    pieces = [row.rpartition(" ")[0] for row in rows if not row.startswith("<")]
    draw.seed(args.seed)
    lengths = [round(draw.triangular(5, 30, 10)) for _ in range(args.sentences)]  # mean 15
    args.source.write_text("".join(" ".join(draw.choices(pieces, k=length)) + "\n" for length in lengths), "utf-8")


def exported(args: argparse.Namespace, folder: Path, runtime: str, quantization: str) -> Path:
    output = folder / f"{runtime}-{quantization}"
    if output.exists():
        facts = json.loads((output / "metadata.json").read_text(encoding="utf-8"))
        with open(args.checkpoint, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != facts["checkpoint_sha256"]:
                raise SystemExit(f"{output}: is there already, and of another checkpoint")
        print(f"{output}: taken as it is", file=sys.stderr)
        return output
    quantization, _, encoder = quantization.partition("+")  # int4+int8: the encoder in int8
    extra = ["--encoder-quantization", encoder] if encoder else []
    if "calibrated" in quantization:  # with the text itself, which changes no speed
        (folder / "calibration").write_text(plain(args.source.read_text(encoding="utf-8")), encoding="utf-8")
        extra += ["--calibration", folder / "calibration"]
    call(
        BIN / "fairseq-compress", "export", "--checkpoint", args.checkpoint, "--data", args.data, "--output", output,
        "--sentencepiece-model", args.sentencepiece_model, "--runtime", runtime, "--quantization", quantization,
        "--no-check", "--max-len-b", args.length, *extra,
    )  # fmt: skip
    return output


def settings(system: str, scenario: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All that are tried."""
    one, counts = scenario == "one", list(dict.fromkeys((1, CORES)))
    if scenario == "first":
        return [{}]
    if system == "CTranslate2" and one:
        return [{"inter x intra": (1, count)} for count in counts]
    if system == "CTranslate2":
        grid = itertools.product(dict.fromkeys([(1, CORES), (CORES, 1)]), args.max_batch_sizes)
        return [{"inter x intra": pair, "max_batch_size": size} for pair, size in grid]
    if system == "fairseq" and not one:
        grid = itertools.product(counts, args.fairseq_max_tokens)
        return [{"threads": count, "max_tokens": size} for count, size in grid]
    return [{"threads": count} for count in (counts if one else [CORES])]


def seconds_to_first(job: dict[str, Any]) -> float:
    """From the start of the command to its first translation, with compiled modules, as pip installs them."""
    pieces = Path(job["source"]).read_text(encoding="utf-8").split("\n", 1)[0]
    search = ["--beam", job["beam"], "--max-len-b", job["length"]]
    if theirs := job["contestant"] == PEERS[0]:
        command = [BIN / "fairseq-interactive", job["data"], "--user-dir", ROOT / "fairseq_compress", "--cpu", "-s"]
        command += [job["pair"][0], "-t", job["pair"][1], "--path"]
    else:
        command = [BIN / "fairseq-compress", "translate", "--checkpoint"]
        pieces = plain(pieces)
    begin = time.perf_counter()
    with subprocess.Popen(
        [str(part) for part in (*command, job["model"], *search)], text=True, encoding="utf-8", stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": ""},
    ) as process:  # fmt: skip
        process.stdin.write(pieces + "\n")
        process.stdin.close()
        times = [time.perf_counter() - begin for line in process.stdout if line.startswith("H-") or not theirs]
    if process.returncode or not times:
        raise SystemExit(f"{job['contestant']}: {process.args} ended with status {process.returncode}")
    return times[0]


def measure(job: dict[str, Any], args: argparse.Namespace, part: int = 1) -> dict[str, Any]:
    """A figure of a process of its own, with ``part`` > 1 with less of all."""
    if job["scenario"] == "first":
        return {"value": seconds_to_first(job)}
    sentences = args.one if job["scenario"] == "one" else args.sentences
    job = job | {"sentences": -(-sentences // part), "seconds": args.seconds / part}
    return json.loads(call(sys.executable, __file__, "--job", json.dumps(job)).splitlines()[-1])


def rounds(args: argparse.Namespace, models: dict[str, Path], facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of the table."""
    pair = [facts["languages"][side] for side in ("source", "target")]
    shared = {"source": str(args.source), "data": str(args.data), "pair": pair, "length": args.length}
    for scenario, beam in itertools.product(args.scenarios, args.beams):
        shared |= {"scenario": scenario, "beam": beam}
        best = min if scenario == "one" else max
        jobs = {}
        for name, model in models.items():
            job = shared | {"contestant": name, "model": str(model)}
            tried = [job | {"setting": setting} for setting in settings(name.split()[0], scenario, args)]
            jobs[name] = best(tried, key=lambda job: measure(job, args, 2)["value"]) if len(tried) > 1 else tried[0]
        values: dict[str, list[float]] = {name: [] for name in models}
        outputs: dict[str, Sentences] = {}
        order = list(models)
        for run in range(-1 if scenario == "first" else 0, args.first_runs if scenario == "first" else args.runs):
            order.append(order.pop(0))  # caches and other programs disturb all alike
            for name in order:
                result = measure(jobs[name], args)
                outputs[name] = result.get("outputs")
                values[name] += [result["value"]] * (run >= 0)  # without the run that fills the disk's cache
        medians = {name: statistics.median(found) for name, found in values.items()}
        for name, median in medians.items():
            ratios = {peer: medians[peer] / median for peer in PEERS if peer in medians}
            row = {"scenario": scenario, "beam": beam, "contestant": name, "setting": jobs[name]["setting"]}
            row |= {"value": median, "unit": UNITS[scenario], "runs": values[name]}
            row["ratios"] = {peer: 1 / ratio if scenario == "batches" else ratio for peer, ratio in ratios.items()}
            if outputs.get(PEERS[0]):
                row["equal"] = statistics.mean(map(list.__eq__, outputs[name], outputs[PEERS[0]]))
            print(f"{scenario}, beam {beam}, {name}: {median:.4g} {UNITS[scenario]}", file=sys.stderr, flush=True)
            yield row


def table(rows: list[dict[str, Any]]) -> str:
    peers = "".join(f" against {peer} |" for peer in PEERS)
    lines = [f"| scenario | beam | contestant | setting | value |{peers} same tokens as fairseq |", "|---" * 9 + "|"]
    for row in rows:
        setting = ", ".join(f"{name} {value}" for name, value in row["setting"].items())
        ratios = [f"{row['ratios'][peer]:.2f}" if peer in row["ratios"] else "" for peer in PEERS]
        value, equal = f"{row['value']:.4g} {row['unit']}", f"{row['equal']:.0%}" if "equal" in row else ""
        cells = [row["scenario"], str(row["beam"]), row["contestant"], setting, value, *ratios, equal]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def run(args: argparse.Namespace, folder: Path) -> None:
    load = os.getloadavg()[0]
    if args.checkpoint is None:
        folder = folder / f"{args.arch}-{args.vocabulary}-{args.seed}"
        make_random(args, folder)
    models = {PEERS[0]: args.checkpoint}
    models |= {f"CTranslate2 {kind}": exported(args, folder, "ctranslate2", kind) for kind in ("float32", "int8")}
    facts = json.loads((models[PEERS[1]] / "metadata.json").read_text(encoding="utf-8"))
    for kind in args.quantizations:
        try:
            models[f"onnx {kind}"] = exported(args, folder, "onnx", kind)
        except RuntimeError as error:
            print(f"onnx {kind}: left out: {str(error).splitlines()[-1]}", file=sys.stderr)
    models = {name: model for name, model in models.items() if name.split()[0] not in args.without}
    rows = list(rounds(args, models, facts))
    print(
        f"{facts['parameters']:,} parameters, {facts['vocabulary']['target_entries']} entries, {args.sentences} "
        f"sentences, of `one` {args.one}, {args.length + 1} decoding steps, {CORES} cores, load before {load:.1f}; "
        f"medians of {args.runs} rounds, of `first` {args.first_runs}; a ratio above 1: faster\n\n{table(rows)}"
    )
    if args.json:
        whole = {"options": vars(args), "cores": CORES, "load": load, "parameters": facts["parameters"], "rows": rows}
        args.json.write_text(json.dumps(whole, indent=2, default=str) + "\n", encoding="utf-8")


def main() -> None:
    if sys.argv[1:2] == ["--job"]:
        return do(json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser()
    parser.add_argument("--arch", default="transformer", help="of the random model")
    parser.add_argument("--vocabulary", type=int, default=8000, help="entries of the random model, with 4 symbols")
    parser.add_argument("--seed", type=int, default=1)
    for name in ("checkpoint", "data", "sentencepiece-model", "source"):
        parser.add_argument(f"--{name}", type=Path, help="of a trained model")
    parser.add_argument("--quantizations", nargs="*", default=["float32", "int8"], help="of ours")
    parser.add_argument("--without", nargs="*", default=[], choices=list(SYSTEMS))
    parser.add_argument("--scenarios", nargs="+", default=list(UNITS), choices=list(UNITS))
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--sentences", type=int, default=200, help="of batches; settings are tuned on half of them")
    parser.add_argument("--one", type=int, default=40, help="sentences of one; settings are tuned on half of them")
    parser.add_argument("--seconds", type=float, default=3, help="at least so long in each process")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--first-runs", type=int, default=5)
    parser.add_argument("--fairseq-max-tokens", type=int, nargs="+", default=[1000, 2000, 4000])
    parser.add_argument("--max-batch-sizes", type=int, nargs="+", default=[256, 512, 1024, 2048], help="of CTranslate2")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where models stay, instead of a temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same figures")
    parser.add_argument("--quick", action="store_true", help="one run with few sentences and settings, to try it out")
    args = parser.parse_args()
    if args.checkpoint and not (args.data and args.sentencepiece_model and args.source):
        parser.error("--checkpoint goes with --data, --sentencepiece-model and --source")
    if args.quick:
        args.sentences, args.one, args.seconds, args.runs, args.first_runs = 24, 4, 0.0, 1, 1
        args.fairseq_max_tokens, args.max_batch_sizes = [2000], [512]
    with tempfile.TemporaryDirectory() as temporary:
        run(args, args.work or Path(temporary))


if __name__ == "__main__":
    main()
