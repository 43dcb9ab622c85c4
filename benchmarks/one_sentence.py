"""One sentence at a time, and a whole text, in one thread: exported models, CTranslate2 int8 and ``fxtranslate``.

    python benchmarks/one_sentence.py [--archs transformer_student_tiny transformer_student_tiny_ssru]
        [--quantizations int8 int4 int8_block] [--beams 1 4] [--rounds 9] [--work DIR] [--json FILE] [--quick]

Weights are random, as fairseq initializes them, and sources are random subwords; every translation has a fixed length,
which is checked. Of ``--source`` subwords LENGTH tokens and a forced EOS are made (CTranslate2: LENGTH + 1 tokens).
With ``fxtranslate`` the model is ``transformer_student_tiny_ssru_bergamot``, and EOS is as good as impossible, so that
it makes 2 S + 4 tokens for S source tokens, EOS counted; so do ours there. It is always greedy. All models are loaded
in this process and take turns; a figure is the median over all rounds, the least is told too. CTranslate2 translates
the text in the best of ``--max-batch-sizes``. The folder --work keeps what is made, for later runs.
"""

import argparse
import importlib.util
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before the runtimes are imported
from translate import BIN, call, exported, make_random, plain

from fairseq_compress import runtimes
from fairseq_compress.runtimes.options import RuntimeOptions

ENGINE = "fxtranslate"
ENGINE_ARCH = "transformer_student_tiny_ssru_bergamot"
NEVER = -1e9  # bias of EOS
Sentences = list[list[str]]
Job = Callable[[Sentences], Sentences | None]


def with_onnx(folder: Path, beam: int, **search: Any) -> Job:
    model = runtimes.open(folder, RuntimeOptions({"beam": beam, **search}, threads=1)).translator
    return lambda sentences: [found[0].output for found in model.translate(sentences)]


def with_ctranslate2(folder: Path, beam: int, length: int, batch: int) -> Job:
    import ctranslate2

    model = ctranslate2.Translator(str(folder), device="cpu", inter_threads=1, intra_threads=1)
    options = {"beam_size": beam, "max_input_length": 0, "return_end_token": True, "batch_type": "tokens"}
    options |= dict.fromkeys(("min_decoding_length", "max_decoding_length"), length + 1)
    options["max_batch_size"] = batch
    return lambda sentences: [found.hypotheses[0][:-1] for found in model.translate_batch(sentences, **options)]


def with_engine(folder: Path) -> Job:
    """Text in and out; its number of tokens is not checked."""
    import fxtranslate

    own = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))["bergamot"]
    names = [own["model"], *dict.fromkeys(own["vocabularies"])]
    model = fxtranslate.Translator(*((folder / name).read_bytes() for name in (*names, names[-1])[:3]))

    def translate(sentences: Sentences) -> None:
        for sentence in sentences:
            model.translate(plain(" ".join(sentence)))

    return translate


def why_no_engine() -> str | None:
    if importlib.util.find_spec(ENGINE) is None:
        return f"{ENGINE} is not installed"
    return None if "bergamot" in runtimes.exported() else "export has no --runtime bergamot"


def prepare(args: argparse.Namespace, arch: str) -> tuple[argparse.Namespace, Path, list[str]]:
    """Options of ``translate.py`` for a random model, its folder, and its subwords."""
    folder = args.work / arch
    made = argparse.Namespace(**vars(args) | {"arch": arch, "source": None, "sentences": 10, "seed": 1})
    fresh = not (folder / "checkpoint_last.pt").exists()
    make_random(made, folder)
    if fresh and arch == ENGINE_ARCH:
        import torch

        state = torch.load(made.checkpoint, weights_only=False)
        state["model"]["decoder.output_projection.bias"][2] = NEVER
        torch.save(state, made.checkpoint)
    rows = (folder / "spm.dict.txt").read_text(encoding="utf-8").splitlines()
    return made, folder, [row.rpartition(" ")[0] for row in rows if row.startswith("\N{LOWER ONE EIGHTH BLOCK}")]


def of_engine(made: argparse.Namespace, folder: Path) -> Path:
    output = folder / "bergamot"
    if not output.exists():
        call(
            BIN / "fairseq-compress", "export", made.checkpoint, output, "--data", made.data, "--runtime", "bergamot",
            "--sentencepiece-model", made.sentencepiece_model, "--no-check", "--calibration", folder / "text.xx",
        )  # fmt: skip
    return output


def measure(jobs: dict[str, Job], units: list[Sentences], lengths: list[list[int]], rounds: int) -> dict[str, Any]:
    """Seconds of each job for each unit of sentences, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    order = list(jobs)
    for run in range(rounds + 1):
        order.append(order.pop(0))
        for name in order:
            for unit, expected in zip(units, lengths, strict=True):
                begin = time.perf_counter()
                found = jobs[name](unit)
                if run:
                    seconds[name].append(time.perf_counter() - begin)
                if found is not None and [len(output) for output in found] != expected:
                    raise SystemExit(f"{name}: translations must have {expected[:5]} tokens")
    return {name: {"median": statistics.median(each), "least": min(each)} for name, each in seconds.items()}


def best_batch(args: argparse.Namespace, make: Callable[[int], Job], text: Sentences) -> Job:
    """CTranslate2 with the fastest of the batch sizes."""
    jobs = {str(size): make(size) for size in args.max_batch_sizes}
    found = measure(jobs, [text], [[args.length] * len(text)], 2)
    return jobs[min(jobs, key=lambda name: found[name]["least"])]


def compared(args: argparse.Namespace, arch: str, beam: int) -> Iterator[tuple[str, int, Any]]:
    """Against CTranslate2, where it has the architecture: rows of one sentence and of the text."""
    made, folder, subwords = prepare(args, arch)
    draw = random.Random(args.seed)
    text = [draw.choices(subwords, k=args.source) for _ in range(args.sentences)]
    search = {"max_len_a": 0, "max_len_b": args.length, "min_len": args.length}
    ours = {kind: exported(made, folder, "onnx", kind) for kind in args.quantizations}
    jobs = {f"onnx {kind}": with_onnx(path, beam, **search) for kind, path in ours.items()}
    one = dict(jobs)
    if "ssru" not in arch:
        theirs, name = exported(made, folder, "ctranslate2", "int8"), "CTranslate2 int8"
        one[name] = with_ctranslate2(theirs, beam, args.length, 0)
        jobs[name] = best_batch(args, lambda size: with_ctranslate2(theirs, beam, args.length, size), text)
    units, lengths = [[sentence] for sentence in text[: args.one]], [args.length] * len(text)
    title = f"one sentence, {args.source} to {args.length + 1}"
    yield title, 1, measure(one, units, [[args.length] for _ in units], args.rounds)
    yield "text", len(text), measure(jobs, [text], [lengths], args.text_rounds)


def against_engine(args: argparse.Namespace, beam: int) -> Iterator[tuple[str, int, Any]]:
    made, folder, subwords = prepare(args, ENGINE_ARCH)
    draw = random.Random(args.seed)
    text = [draw.choices(subwords, k=draw.randint(5, 25)) for _ in range(args.sentences)]
    same = [draw.choices(subwords, k=args.engine_source) for _ in range(args.one)]
    search = {"max_len_a": 2, "max_len_b": 3, "min_len": 0}
    ours = {kind: exported(made, folder, "onnx", kind) for kind in args.quantizations}
    jobs = {f"onnx {kind}": with_onnx(path, beam, **search) for kind, path in ours.items()}
    jobs[f"{ENGINE} int8"] = with_engine(of_engine(made, folder))

    def tokens(sentence: list[str]) -> int:
        return 2 * (len(sentence) + 1) + 3

    title = f"one sentence, {args.engine_source} to {tokens(same[0]) + 1}"
    yield title, 1, measure(jobs, [[each] for each in same], [[tokens(each)] for each in same], args.rounds)
    yield "text", len(text), measure(jobs, [text], [[tokens(each) for each in text]], args.text_rounds)


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    groups = [(arch, beam, compared(args, arch, beam)) for arch in args.archs for beam in args.beams]
    if reason := why_no_engine():
        print(f"{ENGINE}: left out, {reason}")
    else:
        groups += [(ENGINE_ARCH, beam, against_engine(args, beam)) for beam in args.beams]
    rows = []
    for arch, beam, parts in groups:
        for what, sentences, found in parts:
            peer = next((name for name in found if not name.startswith("onnx")), None)
            for name, times in found.items():
                ratio = times["median"] / found[peer]["median"] if peer else None
                rows.append({"arch": arch, "what": what, "beam": beam, "system": name, "sentences": sentences,
                             "ratio": ratio, "peer": peer, **times})  # fmt: skip
                cells = [arch, what, str(beam), name, f"{1000 * times['median'] / sentences:.2f}",
                         f"{1000 * times['least'] / sentences:.2f}", f"{ratio:.2f}" if ratio else ""]  # fmt: skip
                print(f"| {' | '.join(cells)} |", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="*", default=["transformer_student_tiny", "transformer_student_tiny_ssru"])
    parser.add_argument("--quantizations", nargs="+", default=["int8", "int8_batch", "int8_block", "int4"])
    parser.add_argument("--vocabulary", type=int, default=8000, help="entries, with 4 symbols")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--source", type=int, default=15, help="subwords of a source sentence")
    parser.add_argument("--length", type=int, default=20, help="tokens of a translation, EOS not counted")
    parser.add_argument("--engine-source", type=int, default=7, help=f"subwords of one sentence, with {ENGINE}")
    parser.add_argument("--sentences", type=int, default=200, help="of the text")
    parser.add_argument("--one", type=int, default=20, help="sentences that are translated alone")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--text-rounds", type=int, default=3)
    parser.add_argument("--max-batch-sizes", type=int, nargs="+", default=[256, 512, 1024, 2048], help="of CTranslate2")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, metavar="DIR", help="where models stay, instead of a temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same figures")
    parser.add_argument("--quick", action="store_true", help="few sentences and one round, to try it out")
    args = parser.parse_args()
    if args.quick:
        args.sentences, args.one, args.rounds, args.text_rounds, args.max_batch_sizes = 8, 2, 1, 1, [512]
    with tempfile.TemporaryDirectory() as temporary:
        args.work = args.work or Path(temporary)
        heads = ["model", "what", "beam", "system", "ms a sentence", "least", "ratio of the medians"]
        print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
        rows = run(args)
    if args.json:
        whole = {"options": vars(args), "load": os.getloadavg()[0], "rows": rows}
        args.json.write_text(json.dumps(whole, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
