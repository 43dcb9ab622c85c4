"""What an export for ONNX Runtime keeps of each architecture: its bytes, and equality with the checkpoint.

    python benchmarks/exported_forms.py [--forms low-rank shared ...] [--arch transformer_student_tiny]
        [--vocabulary 8000] [--text PREFIX] [--updates 1] [--sentences 1000] [--plans int8 int4 ipq-20x] [--work DIR]
        [--json FILE]

For each form: ``fairseq-train`` (on random words with a learning rate of 0, or on PREFIX.en and PREFIX.cs),
``quantize`` with each plan, the export in the quantization of the same name (of a plan without one: ``plan``), the
export in float32, and the translation of the first sentences of the text with the checkpoint and with the float32
export. ``weights`` are the files of the runtime, ``all`` every file but the SentencePiece model; percentages are of the
packed file. A sentence counts as equal if its translation is; those that are not are in the JSON with both scores.
Columns of the translations: how many differ from each other, and the share of words that repeat the one before.

A run that was stopped resumes: DIR keeps what was trained, and FILE the forms that are complete.
"""

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
LANGUAGES = ("en", "cs")
FORMS: dict[str, list[str]] = {
    "dense": [],
    "low-rank": ["--ffn-rank", "64", "--attention-rank", "48"],
    "shared": ["--encoder-layer-groups", "1"],
    "factorized": ["--embedding-rank", "64"],
    "tensor-train": ["--tensor-train-rank", "16"],
    "convolutional": ["--embedding-rank", "64", "--embedding-convolution", "3"],
    "sparse": ["--sparsity", "0.8"],
    "sparse-blocks": ["--sparsity", "0.9", "--sparse-block", "8"],
    "ssru": ["--decoder-self-attention", "ssru"],
    "average": ["--decoder-self-attention", "average"],
    "bottleneck": ["--bottleneck-width", "64", "--ffn-stack", "2"],
    "uneven": ["--architecture", str(ROOT / "configs" / "architectures" / "uneven-small.json")],
}
OWN_QUANTIZATION = ("int8", "int4")  # plans whose name is a quantization of the export


def call(*command: object, text: str | None = None) -> str:
    environment = os.environ | {"WANDB_MODE": "disabled"}
    result = subprocess.run(list(map(str, command)), env=environment, text=True, capture_output=True, input=text)
    if result.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
    return result.stdout


def prepare(args: argparse.Namespace, folder: Path) -> None:
    """The text, a sentencepiece model and binarized data, once for all forms."""
    if (folder / "bin").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if args.text is None:
        draw = random.Random(1)
        words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(20000)]
        lines = "".join(" ".join(words[start : start + 10]) + "\n" for start in range(0, len(words), 10))
        for language in LANGUAGES:
            (folder / f"text.{language}").write_text(lines, encoding="utf-8")
    else:
        for language in LANGUAGES:
            (folder / f"text.{language}").write_text(Path(f"{args.text}.{language}").read_text("utf-8"), "utf-8")
    texts = [folder / f"text.{language}" for language in LANGUAGES]
    call(BIN / "fairseq-compress", "train-vocabulary", "--input", *texts, "--output", folder / "spm",
         "--vocab-size", args.vocabulary - 1)  # fmt: skip
    for text in texts:
        call(BIN / "fairseq-compress", "encode", "--sentencepiece-model", folder / "spm.model", "--input", text,
             "--output", folder / f"pieces{text.suffix}")  # fmt: skip
    call(BIN / "fairseq-preprocess", "-s", LANGUAGES[0], "-t", LANGUAGES[1], "--trainpref", folder / "pieces",
         "--joined-dictionary", "--srcdict", folder / "spm.dict.txt", "--destdir", folder / "bin")  # fmt: skip


def train(args: argparse.Namespace, data: Path, folder: Path, options: list[str]) -> Path:
    call(
        BIN / "fairseq-train", data / "bin", "--user-dir", ROOT / "fairseq_compress", "--task", "translation", "--cpu",
        "--arch", args.arch, *options, "--optimizer", "adam", "--lr", 0 if args.text is None else "2e-3",
        "--lr-scheduler", "inverse_sqrt", "--warmup-updates", min(100, args.updates), "--clip-norm", 1,
        "--max-tokens", args.max_tokens, "--max-update", args.updates, "--seed", 1, "--disable-validation",
        "--no-epoch-checkpoints", "--num-workers", 0, "--save-dir", folder, "-s", LANGUAGES[0], "-t", LANGUAGES[1],
    )  # fmt: skip
    return folder / "checkpoint_last.pt"


def measure(args: argparse.Namespace, data: Path, folder: Path, options: list[str]) -> dict[str, Any]:
    """Bytes of the packed and of the exported models, and the translations that are not equal."""
    checkpoint = folder / "checkpoint_last.pt"
    if not checkpoint.exists():
        train(args, data, folder, options)
    found: dict[str, Any] = {"float32": export(data, checkpoint, folder / "float32", "float32")}
    metadata = json.loads((folder / "float32" / "metadata.json").read_text(encoding="utf-8"))
    found["parameters"] = metadata["parameters"]
    for plan in args.plans:
        packed = folder / f"{plan}.safetensors"
        if not packed.exists():
            try:
                call(BIN / "fairseq-compress", "quantize", checkpoint, packed, "--plan", plan)
            except RuntimeError as error:  # such as a plan for layers that the form does not have
                found[plan] = {"refused": str(error).strip().splitlines()[-1]}
                continue
        kind = plan if plan in OWN_QUANTIZATION else "plan"
        found[plan] = {"packed": packed.stat().st_size} | export(data, packed, folder / plan, kind)
    if args.sentences:
        found |= {"sentences": args.sentences} | compare(args, data, folder)
    return found


def export(data: Path, checkpoint: Path, output: Path, kind: str) -> dict[str, Any]:
    """Export if that was not done, and return the bytes of the files."""
    if not output.exists():
        call(BIN / "fairseq-compress", "export", checkpoint, output, "--data", data / "bin", "--no-check",
             "--sentencepiece-model", data / "spm.model", "--quantization", kind, "--max-len-b", 40)  # fmt: skip
    sizes = {file.name: file.stat().st_size for file in output.iterdir()}
    weights = sum(size for name, size in sizes.items() if name.endswith((".onnx", ".bin", ".npy")))
    return {"weights": weights, "all": sum(sizes.values()) - sizes["sentencepiece.model"], "files": sizes}


def compare(args: argparse.Namespace, data: Path, folder: Path) -> dict[str, Any]:
    """Translations by the checkpoint and by the float32 export: those that differ, and how varied they are."""
    lines = (data / "text.en").read_text(encoding="utf-8").splitlines(keepends=True)[: args.sentences]
    checkpoint = ["--data", data / "bin", "--sentencepiece-model", data / "spm.model", "--max-len-b", 40]
    outputs = [
        call(BIN / "fairseq-compress", "translate", folder / name, "--scores", *more, text="".join(lines)).splitlines()
        for name, more in {"checkpoint_last.pt": checkpoint, "float32": []}.items()
    ]
    ours, theirs = ([line.split("\t", 2)[1:] for line in lines] for lines in outputs)
    unequal = [(*one, *two) for one, two in zip(theirs, ours, strict=True) if one[1] != two[1]]
    words = [text.split() for _, text in theirs]
    repeated = sum(one == two for each in words for one, two in itertools.pairwise(each))
    return {
        "unequal": unequal,
        "distinct": len({text for _, text in theirs}),
        "words": sum(map(len, words)),
        "repeated": repeated / max(1, sum(map(len, words))),
    }


def row(name: str, found: dict[str, Any], plans: list[str]) -> str:
    numbers = [f"{found['parameters']:,}", f"{found['float32']['weights']:,}"]
    for plan in plans:
        sizes = found[plan]
        if "refused" in sizes:
            numbers += ["", "", ""]
            continue
        against = [f"{sizes[key]:,} ({sizes[key] / sizes['packed'] - 1:+.1%})" for key in ("weights", "all")]
        numbers += [f"{sizes['packed']:,}", *against]
    if "unequal" in found:
        share = f"{found['sentences'] - len(found['unequal'])} of {found['sentences']}"
        numbers += [share, str(found["distinct"]), f"{found['repeated']:.1%}"]
    return f"| {' | '.join([name, *numbers])} |"


def title(args: argparse.Namespace) -> str:
    names = ["form", "parameters", "float32, weights"]
    names += [f"{plan} {what}" for plan in args.plans for what in ("packed", "export, weights", "export, all")]
    names += ["equal", "distinct", "repeated words"] * bool(args.sentences)
    return f"| {' | '.join(names)} |\n|---|{'---:|' * (len(names) - 1)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--arch", default="transformer_student_tiny")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="more of fairseq-train; the last one")
    parser.add_argument("--vocabulary", type=int, default=8000, help="entries, with 4 symbols")
    parser.add_argument("--text", help="prefix of a parallel text en-cs; default: random words")
    parser.add_argument("--updates", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=1000, help="of a batch")
    parser.add_argument("--sentences", type=int, default=1000, help="0: only sizes")
    parser.add_argument("--plans", nargs="*", default=["int8"], help="of quantize")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where models stay, instead of a temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same figures, with the bytes of each file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = args.work or Path(name)
        prepare(args, folder)
        print(title(args), flush=True)
        run = {key: getattr(args, key) for key in ("arch", "vocabulary", "updates", "max_tokens", "options")}
        found: dict[str, Any] = {"run": run | {"text": "random words" if args.text is None else Path(args.text).name}}
        if args.json and args.json.exists():
            found |= json.loads(args.json.read_text(encoding="utf-8"))
        for form in args.forms:
            if form not in found:
                found[form] = measure(args, folder, folder / form, [*FORMS[form], *args.options])
            print(row(form, found[form], args.plans), flush=True)
            if args.json:
                args.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
