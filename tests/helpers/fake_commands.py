#!/usr/bin/env python3
"""Stands in for every command of the pipeline, under the name it is called by: records its arguments, makes tiny files.

FAKE_RECORD is the file of the arguments (one JSON list a line). FAKE_HANG names a command or a verb that writes half of
its output, puts its process id into FAKE_PID, and sleeps. FAKE_LOSE names one that loses its last line. Every output is
a pure function of the inputs and arguments that matter, so runs can be compared byte by byte. The launchers start the
processes one after the other, with the variables that the real ones set.
"""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

COMMAND = Path(sys.argv[0]).name
ARGUMENTS = sys.argv[1:]
WORDS = 2 if ARGUMENTS[:1] == ["kd-data"] else 1  # of the verb
ACTION = " ".join(ARGUMENTS[:WORDS]) if COMMAND == "fairseq-compress" else COMMAND


def option(name: str, default: str = "") -> str:
    """The first value after an option."""
    return ARGUMENTS[ARGUMENTS.index(name) + 1] if name in ARGUMENTS else default


def options(name: str) -> list[str]:
    """All values after an option."""
    values = ARGUMENTS[ARGUMENTS.index(name) + 1 :]
    end = next((i for i, value in enumerate(values) if value.startswith("--")), len(values))
    return values[:end]


def read_lines(*files: str) -> list[str]:
    return [line for file in files for line in Path(file).read_text(encoding="utf-8").splitlines()]


def write_lines(file: str | Path, lines: list[str]) -> None:
    if os.environ.get("FAKE_LOSE") == ACTION:
        lines = lines[:-1]
    if os.environ.get("FAKE_HANG") == ACTION:
        Path(file).write_text("half", encoding="utf-8")
        hang()
    Path(file).write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def hang() -> None:
    pid_file = Path(os.environ["FAKE_PID"])
    pid_file.with_suffix(".new").write_text(str(os.getpid()))
    pid_file.with_suffix(".new").rename(pid_file)
    time.sleep(600)


def prepare() -> None:
    prefix = option("--output")
    for side in ("source", "target"):
        write_lines(f"{prefix}.{option(f'--{side}-lang')}", read_lines(*options(f"--{side}")))
    Path(option("--report")).write_text("{}")


def train_vocabulary() -> None:
    text = "".join(sorted(set("".join(read_lines(*options("--input"))))))
    for suffix in ("model", "vocab", "dict.txt"):
        Path(f"{option('--output')}.{suffix}").write_text(text + option("--vocab-size"))


def encode() -> None:
    write_lines(option("--output"), [f"▁{line}" for line in read_lines(option("--input"))])


def decode() -> None:
    write_lines(option("--output"), [line.removeprefix("▁") for line in read_lines(option("--input"))])


def preprocess() -> None:
    folder = Path(option("--destdir"))
    folder.mkdir(exist_ok=True)
    languages = option("--source-lang"), option("--target-lang")
    pair = "-".join(languages)
    for split in ("train", "valid", "test"):
        for number, prefix in enumerate(filter(None, option(f"--{split}pref").split(","))):
            for lang in languages:
                lines = read_lines(f"{prefix}.{lang}")
                name = folder / f"{split}{number or ''}.{pair}.{lang}"
                write_lines(f"{name}.bin", lines)
                count = len(lines) - (os.environ.get("FAKE_LOSE") == ACTION)
                Path(f"{name}.idx").write_bytes(b"MMIDIDX\0\0" + struct.pack("<QBQ", 1, 8, count))
    print("2026 | INFO | fairseq_cli.preprocess | sents, ", time.time())


def save(file: Path, text: str) -> None:
    """A zip file, as torch writes; the same bytes at any time of the day."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("data.pkl"), text)


def train() -> None:
    folder = Path(option("--save-dir"))
    folder.mkdir(exist_ok=True)
    last = folder / "checkpoint_last.pt"
    done = 0
    if last.exists():
        with zipfile.ZipFile(last) as archive:
            done = int(archive.read("data.pkl").split()[0])
    print("threads:", os.environ.get("OMP_NUM_THREADS", "all"), os.environ.get("OMP_WAIT_POLICY"))
    print("wandb:", os.environ.get("WANDB_MODE", "as logged in"))
    limits = ("--max-epoch", "--max-update")
    settings = [
        value
        for before, value in zip(["", *ARGUMENTS], ARGUMENTS, strict=False)
        if not value.endswith(".tmp") and "/" not in value and before not in limits
    ]
    ends = [number // unit for name, unit in zip(limits, (1, 10), strict=True) if (number := int(option(name, "0")))]
    for epoch in range(done + 1, min(ends) + 1):
        print(
            f"2026 | INFO | train_inner | epoch {epoch}: num_updates={epoch * 10}, train_wall={epoch * 10 + 5}, wall=9"
        )
        print(f"2026 | INFO | train | epoch {epoch} | num_updates {epoch * 10}", flush=True)
        save(folder / f"checkpoint{epoch}.pt", f"{epoch} {hashlib.sha256(repr(settings).encode()).hexdigest()}")
        shutil.copy(folder / f"checkpoint{epoch}.pt", last)
        if epoch == 2 and os.environ.get("FAKE_HANG") == ACTION:
            hang()


def generate() -> None:
    pair = f"{option('--source-lang')}-{option('--target-lang')}"
    data = ARGUMENTS[ARGUMENTS.index("--") + 1]
    index = Path(data) / f"{option('--gen-subset')}.{pair}.{option('--source-lang')}.idx"
    count = struct.unpack("<Q", index.read_bytes()[18:26])[0]
    lines = []
    for number in reversed(range(count)):  # fairseq starts with the longest, in any order
        lines += [f"S-{number}\tx", f"D-{number}\t-0.5\t▁překlad {number}"]
    if os.environ.get("FAKE_HANG") == ACTION:
        print(*lines[: len(lines) // 2], sep="\n", flush=True)
        hang()
    print(*lines, sep="\n")
    print("INFO:fairseq.logging.progress_bar::      6 / 17 wps=331", file=sys.stderr)
    print(f"# sentences: {count}", "# seconds: 1.5 1.625 1.25", sep="\n")


def collect() -> None:
    found = [line.split("\t") for line in read_lines(option("--input")) if line.startswith("D-")]
    write_lines(option("--output"), [text for _, _, text in sorted(found, key=lambda row: int(row[0][2:]))])


def share(output: Path, units: list[str]) -> list[str] | None:
    """This rank's lines of work into OUTPUT.work; all lines, once every rank is there. Goes on where it was killed."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    folder = Path(f"{output}.work")
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{rank}-{size}"
    done = len(read_lines(str(log))) if log.exists() else 0
    mine = units[rank::size]
    for number, unit in enumerate(mine[done:], start=done):
        if os.environ.get("FAKE_HANG") == ACTION and number == len(mine) // 2:
            hang()
        with log.open("a", encoding="utf-8") as stream:
            stream.write(unit + "\n")
        print(f"{ACTION} {rank}/{size}: {number + 1} of {len(mine)} sentences, 2.0 sentences/s", flush=True)
    logs = [folder / f"{other}-{size}" for other in range(size)]
    if not all(other.exists() for other in logs):
        return None
    shares = [read_lines(str(other)) for other in logs]
    shutil.rmtree(folder)
    return [shares[number % size][number // size] for number in range(len(units))]


def nbest() -> None:
    output, sources = Path(option("--output")), read_lines(option("--source"))
    if units := share(output, [f"{number} {source}" for number, source in enumerate(sources)]):
        count = int(option("--nbest"))
        write_lines(output, [f"{unit.split()[0]}\t-0.{k}\tpřeklad {unit} {k}" for unit in units for k in range(count)])
        Path(f"{output}.json").write_text(json.dumps(ARGUMENTS[1:2]))


def score_nbest() -> None:
    output = Path(option("--output"))
    if units := share(output, read_lines(option("--nbest"))):
        write_lines(output, units)


def select() -> None:
    """The first hypothesis of each source but the first source, as if that had been dropped."""
    hypotheses = [line.split("\t") for line in read_lines(option("--nbest"))]
    count = len({index for index, _, _ in hypotheses})
    best = [next(text for index, _, text in hypotheses if index == str(source)) for source in range(1, count)]
    Path(option("--output-source")).write_text("".join(f"{line}\n" for line in read_lines(option("--source"))[1:]))
    write_lines(option("--output-target"), best)
    Path(option("--report")).write_text(json.dumps([option("--mode"), option("--drop-worst")]))
    if option("--output-nbest"):
        write_lines(option("--output-nbest"), ["\t".join(line) for line in hypotheses if line[0] != "0"])


def encode_hypotheses() -> None:
    records = [line.rpartition("\t") for line in read_lines(option("--nbest"))]
    write_lines(option("--output"), [f"{place}\t▁{text}" for place, _, text in records])


def binarize_hypotheses() -> None:
    write_lines(Path(option("--data")) / "train.en-cs.kbest.bin", read_lines(option("--nbest")))


def cache_teacher() -> None:
    pair = f"{option('--source-lang')}-{option('--target-lang')}"
    for split in options("--splits"):
        output = Path(option("--output")) / split
        targets = read_lines(str(Path(option("--data")) / f"{split}.{pair}.{option('--target-lang')}.bin"))
        if not output.exists() and (units := share(output, targets)):
            output.mkdir()
            write_lines(output / "records.bin", [f"{option('--top-k')} {unit}" for unit in units])


def torchrun() -> None:
    launch(int(option("--nproc_per_node")), ARGUMENTS[ARGUMENTS.index("--no-python") + 1 :])


def srun() -> None:
    tasks = int(option("--nodes")) * int(option("--ntasks-per-node"))
    launch(tasks, ARGUMENTS[ARGUMENTS.index("bash") :], "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")


def launch(tasks: int, command: list[str], *names: str) -> None:
    rank, local, size = names or ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    for task in range(tasks):
        environment = os.environ | {rank: str(task), local: str(task), size: str(tasks), "MASTER_ADDR": "here"}
        subprocess.run(command, check=True, env=environment)


def encode_dual() -> None:
    folder = Path(option("--output"))
    folder.mkdir()  # the real one refuses a folder that is there
    write_lines(folder / "text", read_lines(option("--teacher-dictionary"), f"{option('--trainpref')}.cs"))
    write_lines(folder / "dict.student.txt", read_lines(option("--student-dictionary")))


def extract_student() -> None:
    write_lines(Path(option("--output")).with_name("dict.en.txt"), read_lines(option("--dictionary")))
    write_lines(option("--output"), ["student", *read_lines(option("--checkpoint"))])


def average() -> None:
    paths = sorted(Path(option("--checkpoint")).glob("checkpoint[0-9].pt"))[-int(option("--last")) :]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    write_lines(option("--output"), [f"{path.name} {digest}" for path, digest in zip(paths, digests, strict=True)])


def export() -> None:
    folder = Path(option("--output"))
    folder.mkdir()
    write_lines(folder / "model", [option("--quantization"), *read_lines(option("--checkpoint"))])


def timing() -> None:
    if ARGUMENTS[1] == "--":
        generate()
        return
    lines = [f"převod {line}" for line in read_lines(option("--source"))]
    if os.environ.get("FAKE_LOSE") == ACTION:
        lines = [*lines[:-2], f"{lines[-2]} {lines[-1]}"]
    print(*lines, f"# sentences: {len(lines)}", "# seconds: 0.5 0.4 0.6", sep="\n")


def score() -> None:
    settings = [value for value in ARGUMENTS if "/" not in value]
    write_lines(option("--output"), [json.dumps(settings), *read_lines(option("--hypothesis"))])


def report() -> None:
    folder = Path(option("--output"))
    folder.mkdir(exist_ok=True)
    write_lines(folder / "report.md", [f"# {option('--title')}", *(Path(name).name for name in options("--scores"))])


ACTIONS = {
    "prepare": prepare, "train-vocabulary": train_vocabulary, "encode": encode, "decode": decode,
    "fairseq-preprocess": preprocess, "fairseq-train": train,
    "kd-data collect": collect, "nbest": nbest, "kd-data score": score_nbest, "kd-data select": select,
    "kd-data encode": encode_hypotheses, "kd-data binarize": binarize_hypotheses, "cache-teacher": cache_teacher,
    "encode-dual": encode_dual, "extract-student": extract_student, "average": average,
    "export": export, "time": timing, "score": score, "report": report,
    "torchrun": torchrun, "srun": srun,
}  # fmt: skip

if __name__ == "__main__":
    with open(os.environ["FAKE_RECORD"], "a", encoding="utf-8") as record:
        record.write(json.dumps([COMMAND, *ARGUMENTS]) + "\n")
    ACTIONS[ACTION]()
