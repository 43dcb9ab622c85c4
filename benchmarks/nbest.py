"""Sentences a second of ``fairseq-compress nbest`` relative to ``fairseq-generate``, on a CPU.

    python benchmarks/nbest.py --checkpoint C.pt --data DATA_BIN --source FILE [--reference FILE] [--beam 5]
        [--runs 3] [--lines N] [--precisions float32 int8] [--exported DIR ...]

Each DIR is an export of the same model. The FILEs contain sentencepiece subwords, DATA_BIN the dictionaries. Both sides
decode the same lines with the same model and beam: fairseq-generate in float32 on all cores with the best of several
batch sizes, nbest in one process on all cores and with one single-threaded process for each core. Decoding only: for
fairseq the time inside the generator, as it prints it; for nbest from the first batch to the last, with everything in
between. Medians of interleaved runs. Then all hypotheses of the beam are compared, token for token, and with
--reference by sacreBLEU.
"""

import argparse
import itertools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from sacrebleu.metrics import BLEU

from fairseq_compress.corpus.bleu_tokenizer import bleu_tokenizer
from fairseq_compress.corpus.nbest import read_nbest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CORES = len(os.sched_getaffinity(0))


def call(threads: int, *command: object) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "WANDB_MODE": "disabled"}
    result = subprocess.run(
        [str(part) for part in command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if result.returncode:
        raise SystemExit(result.stdout)
    return result.stdout


def languages(checkpoint: str) -> tuple[str, str]:
    from fairseq_compress.checkpoint.load import load_upgraded

    task = load_upgraded(checkpoint)[1].task
    return task.source_lang, task.target_lang


def binarize(source: Path, data: Path, folder: Path, pair: tuple[str, str]) -> None:
    shutil.copy(source, folder / f"test.{pair[0]}")
    call(
        1, BIN / "fairseq-preprocess", "-s", pair[0], "-t", pair[1], "--only-source", "--testpref", folder / "test",
        "--srcdict", data / f"dict.{pair[0]}.txt", "--destdir", folder / "bin", "--workers", 1,
    )  # fmt: skip
    for language in pair:
        shutil.copy(data / f"dict.{language}.txt", folder / "bin")


def of_fairseq(args: argparse.Namespace, folder: Path, pair: tuple[str, str], max_tokens: int) -> tuple[float, str]:
    """Sentences a second and the log."""
    log = call(
        CORES, BIN / "fairseq-generate", folder / "bin", "--user-dir", ROOT / "fairseq_compress", "-s", pair[0],
        "-t", pair[1], "--cpu", "--path", args.checkpoint, "--beam", args.beam, "--nbest", args.beam,
        "--max-tokens", max_tokens, "--no-progress-bar",
    )  # fmt: skip
    return float(re.findall(r"Translated .*\(([\d.]+) sentences/s", log)[-1]), log


def of_ours(args: argparse.Namespace, folder: Path, processes: int, precision: str) -> tuple[float, Path]:
    """Sentences a second and the file; a precision with a slash is a folder of ``fairseq-compress export``."""
    output = folder / f"{precision.replace('/', '-')}.nbest"
    for path in (output, folder / f"{output.name}.json"):
        path.unlink(missing_ok=True)
    extra = ["--max-tokens", args.max_tokens] if args.max_tokens else []
    model = ["--checkpoint", args.checkpoint, "--data", args.data, "--device", "cpu", "--precision", precision]
    if "/" in precision:
        model = ["--checkpoint", precision]
    log = call(
        CORES // processes, BIN / "fairseq-compress", "nbest", *model, "--source", folder / "source",
        "--output", output, "--beam", args.beam, "--processes", processes, *extra,
    )  # fmt: skip
    shares = [(int(done), float(speed)) for done, speed in re.findall(r": (\d+) of \1 sentences, ([\d.]+)", log)]
    return sum(done for done, _ in shares) / max(done / speed for done, speed in shares), output


def hypotheses_of_fairseq(log: str) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for line in log.splitlines():
        if line.startswith("H-"):
            name, _, text = line.split("\t")
            found.setdefault(int(name[2:]), []).append(text)
    return found


def compare(
    theirs: dict[int, list[str]], ours: dict[int, list[str]], references: list[str] | None, target_lang: str
) -> str:
    """How many sentences have the same hypotheses, all of them and the best; BLEU of the best."""
    filled = [index for index, texts in ours.items() if texts != [""]]
    whole = sum(ours[index] == theirs[index] for index in filled)
    best = sum(ours[index][0] == theirs[index][0] for index in filled)
    text = f"token for token as fairseq-generate: {whole} of {len(filled)} whole lists, {best} of the best"
    if references is None:
        return text
    metric = BLEU(tokenize=bleu_tokenizer(target_lang).name)
    scores = [
        metric.corpus_score([plain(lists[index][0]) for index in filled], [[references[index] for index in filled]])
        for lists in (theirs, ours)
    ]
    return f"{text}; BLEU {scores[1].score:.2f}, of fairseq-generate {scores[0].score:.2f}"


def plain(pieces: str) -> str:
    return pieces.replace(" ", "").replace("\N{LOWER ONE EIGHTH BLOCK}", " ").strip()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--source", required=True, type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--precisions", nargs="+", default=["float32", "int8"])
    parser.add_argument("--exported", nargs="+", default=[], metavar="DIR", help="absolute paths")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--lines", type=int, help="only so many lines of FILE")
    parser.add_argument("--fairseq-max-tokens", type=int, nargs="+", default=[4000, 8000, 12000])
    parser.add_argument("--max-tokens", type=int, help="of ours, instead of its default")
    args = parser.parse_args()
    pair = languages(args.checkpoint)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = args.source.read_text(encoding="utf-8").split("\n")[:-1][: args.lines]
        (folder / "source").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        binarize(folder / "source", args.data, folder, pair)
        speeds: dict[str, list[float]] = {}
        found: dict[str, Path] = {}
        for _ in range(args.runs):
            for max_tokens in args.fairseq_max_tokens:
                speed, log = of_fairseq(args, folder, pair, max_tokens)
                speeds.setdefault(f"fairseq-generate, {CORES} threads, --max-tokens {max_tokens}", []).append(speed)
            for precision, processes in itertools.product(
                [*args.precisions, *args.exported], dict.fromkeys((1, CORES))
            ):
                speed, found[precision] = of_ours(args, folder, processes, precision)
                name = f"nbest, {precision}, {processes} x {CORES // processes} threads"
                speeds.setdefault(name, []).append(speed)
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        best = max(speed for name, speed in medians.items() if name.startswith("fairseq"))
        print(f"{len(lines)} lines, beam {args.beam}, {args.runs} runs; ratios to the best of fairseq-generate")
        for name, speed in medians.items():
            print(f"{name:50} {speed:8.1f} sentences/s  {speed / best:.2f}x")
        references = None
        if args.reference:
            references = [plain(line) for line in args.reference.read_text(encoding="utf-8").split("\n")[: len(lines)]]
        for precision, nbest in found.items():
            ours = {each.index: [text for _, text in each.hypotheses] for each in read_nbest(nbest)}
            print(f"{precision}: {compare(hypotheses_of_fairseq(log), ours, references, pair[1])}")


if __name__ == "__main__":
    main()
