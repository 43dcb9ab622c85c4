"""What an export for ONNX Runtime keeps of each architecture: its bytes, and equality with the checkpoint.

    python benchmarks/exported_forms.py [--forms low-rank shared ...] [--arch transformer_student_tiny]
        [--vocabulary 8000] [--text PREFIX] [--updates 1] [--sentences 1000] [--work DIR] [--json FILE]

For each form: ``fairseq-train`` (on random words with a learning rate of 0, or on PREFIX.en and PREFIX.cs),
``quantize --plan int8``, ``export`` in int8 and float32, and the translation of the first sentences of the text with
the checkpoint and with the float32 export. ``weights`` are the files of the runtime, ``all`` every file but the
SentencePiece model; percentages are of the packed file. A sentence counts as equal if its translation is.
"""

import argparse
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
}


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
        "--max-tokens", 1000, "--max-update", args.updates, "--seed", 1, "--disable-validation",
        "--no-epoch-checkpoints", "--num-workers", 0, "--save-dir", folder, "-s", LANGUAGES[0], "-t", LANGUAGES[1],
    )  # fmt: skip
    return folder / "checkpoint_last.pt"


def measure(args: argparse.Namespace, data: Path, folder: Path, options: list[str]) -> dict[str, Any]:
    """Bytes of the packed and of the exported model, and the share of equal translations."""
    checkpoint = folder / "checkpoint_last.pt"
    if not checkpoint.exists():
        train(args, data, folder, options)
    packed = folder / "int8.safetensors"
    if not packed.exists():
        call(BIN / "fairseq-compress", "quantize", checkpoint, packed, "--plan", "int8")
    found: dict[str, Any] = {"packed": packed.stat().st_size}
    for kind in ("int8", "float32"):
        output = folder / kind
        if not output.exists():
            call(BIN / "fairseq-compress", "export", checkpoint, output, "--data", data / "bin", "--no-check",
                 "--sentencepiece-model", data / "spm.model", "--quantization", kind, "--max-len-b", 40)  # fmt: skip
        metadata = json.loads((output / "metadata.json").read_text(encoding="utf-8"))
        sizes = {file.name: file.stat().st_size for file in output.iterdir()}
        weights = sum(size for name, size in sizes.items() if name.endswith((".onnx", ".bin", ".npy")))
        found[kind] = {"weights": weights, "all": sum(sizes.values()) - sizes["sentencepiece.model"], "files": sizes}
        found["parameters"] = metadata["parameters"]
    if args.sentences:
        found["equal"] = equal(args, data, folder)
    return found


def equal(args: argparse.Namespace, data: Path, folder: Path) -> float:
    """The share of sentences whose translations by the checkpoint and by the float32 export are equal."""
    lines = (data / "text.en").read_text(encoding="utf-8").splitlines(keepends=True)[: args.sentences]
    checkpoint = ["--data", data / "bin", "--sentencepiece-model", data / "spm.model", "--max-len-b", 40]
    outputs = [
        call(BIN / "fairseq-compress", "translate", folder / name, *more, text="".join(lines)).splitlines()
        for name, more in {"checkpoint_last.pt": checkpoint, "float32": []}.items()
    ]
    return sum(one == two for one, two in zip(*outputs, strict=True)) / len(lines)


def row(name: str, found: dict[str, Any]) -> str:
    def against(size: int) -> str:
        return f"{size:,} ({size / found['packed'] - 1:+.1%})"

    int8 = found["int8"]
    numbers = [f"{found['parameters']:,}", f"{found['packed']:,}", against(int8["weights"]), against(int8["all"])]
    share = f"{found['equal']:.1%}" if "equal" in found else ""
    return f"| {' | '.join([name, *numbers, format(found['float32']['weights'], ','), share])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--arch", default="transformer_student_tiny")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="more of fairseq-train; the last one")
    parser.add_argument("--vocabulary", type=int, default=8000, help="entries, with 4 symbols")
    parser.add_argument("--text", help="prefix of a parallel text en-cs; default: random words")
    parser.add_argument("--updates", type=int, default=1)
    parser.add_argument("--sentences", type=int, default=1000, help="0: only sizes")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where models stay, instead of a temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same figures, with the bytes of each file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = args.work or Path(name)
        prepare(args, folder)
        print("| form | parameters | packed int8 | onnx int8, weights | all files | onnx float32, weights | equal |")
        print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
        found = {}
        for form in args.forms:
            found[form] = measure(args, folder, folder / form, [*FORMS[form], *args.options])
            print(row(form, found[form]), flush=True)
        if args.json:
            args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
