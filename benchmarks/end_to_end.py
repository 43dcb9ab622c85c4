"""From a stock fairseq teacher to an exported student: bytes, BLEU, chrF2 and speed in one run on a CPU.

    python benchmarks/end_to_end.py --teacher T.pt --student S.pt --exported DIR --data DATA_BIN --text FILE
        --reference FILE --hypotheses TEACHER.cs STUDENT.cs EXPORTED.cs --beam 4 [--runs 3] [--output FILE]

DATA_BIN has the binarized text as its test set. ``fairseq-generate`` without the plugin decodes it in batches (the
better of two sizes) and one sentence at a time; its time is the time inside the generator, as it prints it. The
exported model translates the raw text; its time includes segmentation. Each measurement has its own process; medians.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from sacrebleu.metrics import BLEU, CHRF

from fairseq_compress.corpus.bleu_tokenizer import bleu_tokenizer

BIN = Path(sys.executable).parent
CORES = len(os.sched_getaffinity(0))
MAX_TOKENS = (1000, 4000)


def of_fairseq(args: argparse.Namespace, checkpoint: str, *batch: object) -> float:
    """Sentences a second; a plain checkpoint needs no plugin."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(CORES), "WANDB_MODE": "disabled"}
    command = [
        BIN / "fairseq-generate", args.data, "--cpu", "--path", checkpoint, "--beam", args.beam, "--gen-subset", "test",
        "--max-len-a", args.max_len_a, "--max-len-b", args.max_len_b, "--no-progress-bar", *batch,
    ]  # fmt: skip
    result = subprocess.run([str(part) for part in command], env=environment, text=True, capture_output=True)
    if result.returncode:
        raise SystemExit(result.stdout + result.stderr)
    return float(re.findall(r"Translated .*\(([\d.]+) sentences/s", result.stdout + result.stderr)[-1])


def of_export(args: argparse.Namespace) -> tuple[float, float]:
    """Sentences a second in batches, and milliseconds of one sentence, in a new process."""
    command = [sys.executable, __file__, "--measure", args.exported, "--text", args.text, "--beam", str(args.beam)]
    result = subprocess.run(command, text=True, capture_output=True, check=True)
    rate, delay = json.loads(result.stdout)
    return rate, delay


def measure(args: argparse.Namespace) -> None:
    from fairseq_compress import runtimes
    from fairseq_compress.runtimes.options import RuntimeOptions

    model = runtimes.open(args.measure, RuntimeOptions({"beam": args.beam}))
    lines = Path(args.text).read_bytes().split(b"\n")[:-1]

    def translate(some: list[bytes]) -> float:
        begin = time.perf_counter()
        for _ in model.translate(some):
            pass
        return time.perf_counter() - begin

    translate(lines[:64])
    rate = len(lines) / translate(lines)
    translate(lines[:1])
    print(json.dumps([rate, 1000 * statistics.mean(translate([line]) for line in lines[: args.one])]))


def weights(checkpoint: str) -> int:
    """Bytes of the parameters in float32, tied ones once."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)["model"]
    found = {weight.untyped_storage().data_ptr(): weight.numel() for weight in state.values() if weight.numel() > 1}
    return 4 * sum(found.values())


def rows(args: argparse.Namespace) -> list[list[str]]:
    speeds: dict[str, list[float]] = {}
    for _ in range(args.runs):
        for name, checkpoint in (("teacher", args.teacher), ("student", args.student)):
            for size in MAX_TOKENS:
                speeds.setdefault(f"{name} {size}", []).append(of_fairseq(args, checkpoint, "--max-tokens", size))
            speeds.setdefault(f"{name} one", []).append(of_fairseq(args, checkpoint, "--batch-size", 1))
        for kind, value in zip(("many", "one"), of_export(args), strict=True):
            speeds.setdefault(f"export {kind}", []).append(value)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    metadata = json.loads((Path(args.exported) / "metadata.json").read_text(encoding="utf-8"))
    bleu_metric = BLEU(tokenize=bleu_tokenizer(metadata["languages"]["target"]).name)
    references = [Path(args.reference).read_text(encoding="utf-8").split("\n")[:-1]]
    base_bytes = weights(args.teacher)
    base_rate, base_delay = max(medians[f"teacher {size}"] for size in MAX_TOKENS), 1000 / medians["teacher one"]
    table = []
    for name, path in zip(("teacher", "student", "export"), args.hypotheses, strict=True):
        text = Path(path).read_text(encoding="utf-8").split("\n")[:-1]
        bleu, chrf = bleu_metric.corpus_score(text, references), CHRF().corpus_score(text, references)
        if name == "export":
            size, rate, delay = metadata["bytes"], medians["export many"], medians["export one"]
            rates, delays = speeds["export many"], speeds["export one"]
            label = f"the student, exported: {metadata['runtime']}, {metadata['quantization']}"
        else:
            size = weights(args.teacher if name == "teacher" else args.student)
            best = max(MAX_TOKENS, key=lambda tokens: medians[f"{name} {tokens}"])
            rate, rates = medians[f"{name} {best}"], speeds[f"{name} {best}"]
            delay, delays = 1000 / medians[f"{name} one"], [1000 / value for value in speeds[f"{name} one"]]
            label = f"{name}, `fairseq-generate`, float32"
        table.append([
            label, f"{size / 1e6:.1f}", f"{base_bytes / size:.1f}x", f"{bleu.score:.2f}", f"{chrf.score:.2f}",
            f"{delay:.1f} ({min(delays):.1f} to {max(delays):.1f})", f"{base_delay / delay:.1f}x",
            f"{rate:.1f} ({min(rates):.1f} to {max(rates):.1f})", f"{rate / base_rate:.1f}x",
        ])  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", metavar="DIR", help="of a child of this script")
    for name in ("--teacher", "--student", "--exported", "--data", "--text", "--reference", "--output"):
        parser.add_argument(name)
    parser.add_argument("--hypotheses", nargs=3, metavar="FILE")
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--max-len-a", type=float, default=1.5)
    parser.add_argument("--max-len-b", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", type=int, default=200, help="sentences that are translated one by one")
    args = parser.parse_args()
    if args.measure:
        measure(args)
        return
    head = ["system", "MB", "smaller", "BLEU", "chrF2", "ms a sentence", "faster", "sentences/s in batches", "faster"]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows(args))]
    text = "\n".join(
        [
            *lines,
            "",
            f"Beam {args.beam}, {CORES} cores, medians of {args.runs} runs, in brackets the least and the greatest.",
            "",
        ]
    )
    if args.output:
        Path(args.output).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
