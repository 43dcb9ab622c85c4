"""Every bad text gives one clear line and status 1, and nothing that was there before is touched."""

import subprocess
import sys
from pathlib import Path

import pytest

GOOD = {
    "a.en": b"The dog runs .\nA man sleeps .\n",
    "a.cs": "Pes běží .\nMuž spí .\n".encode(),
    "three.cs": b"1\n2\n3\n",
    "empty.txt": b"",
    "blank.txt": b"\n \n",
    "latin2.cs": "Pes\nb\u011b\u017e\u00ed\n".encode("iso-8859-2"),
    "utf16.cs": "Pes\nkocka".encode("utf-16"),
    "broken.model": b"no model at all",
    "g.log": b"D-0\t-0.5\tPes\n",
    "out.en": b"made before\n",
    "out.model": b"made before\n",
    "out.txt": b"made before\n",
}
PREPARE = "prepare --source-lang en --target-lang cs --output out"
VOCABULARY = "train-vocabulary --output out"

CASES = {
    "missing file": (f"{PREPARE} --source nothing.en --target a.cs", "cannot read nothing.en: No such file"),
    "a folder": (f"{PREPARE} --source . --target a.cs", ". is no regular file"),
    "different counts": (f"{PREPARE} --source a.en --target three.cs", "a.en has 2, three.cs has 3"),
    "different counts in the second": (
        f"{PREPARE} --source a.en a.en --target a.cs three.cs",
        "a.en has 2, three.cs has 3",
    ),
    "different numbers of files": (f"{PREPARE} --source a.en a.en --target a.cs", "equally many files, got 2 and 1"),
    "empty file": (f"{PREPARE} --source a.en --target empty.txt", "empty.txt is empty"),
    "not UTF-8": (f"{PREPARE} --source a.en --target latin2.cs", "latin2.cs, line 2: not valid UTF-8 (byte 0xec at"),
    "UTF-16": (
        f"{PREPARE} --source a.en --target utf16.cs",
        "utf16.cs, line 1: not valid UTF-8 (byte 0xff at column 1",
    ),
    "nothing left": (f"{PREPARE} --source a.en --target blank.txt", "no pair is left of a.en: read 2 pairs, kept 0"),
    "too long": (
        f"{PREPARE} --source a.en --target a.cs --no-filter --max-words 3",
        "a.en, line 1: 4 words, over --max-words 3",
    ),
    "same language twice": (f"{PREPARE} --source-lang cs --source a.en --target a.cs", "output out.cs is also"),
    "no language code": (
        f"{PREPARE} --target-lang c/s --source a.en --target a.cs",
        "--target-lang: must be a language code (letters and digits, joined by '-', '_' or '@', such as en, pt_BR",
    ),
    "bad limits": (
        f"{PREPARE} --source a.en --target a.cs --max-words 0 --max-ratio 0.5",
        "--max-ratio: must be in [1, inf), got 0.5; --max-words: must be at least --min-words (1), got 0",
    ),
    "vocabulary too large": (
        f"{VOCABULARY} --input a.en a.cs --vocab-size 8000",
        "--vocab-size: 8000 is more than this text allows; the largest possible is ",
    ),
    "vocabulary too small": (f"{VOCABULARY} --input a.en a.cs --vocab-size 100", "100 is too small"),
    "vocabulary of nothing": (f"{VOCABULARY} --input blank.txt --vocab-size 300", "all lines are empty"),
    "vocabulary of bytes": (f"{VOCABULARY} --input a.en latin2.cs --vocab-size 300", "latin2.cs, line 2: not valid"),
    "vocabulary of an empty file": (f"{VOCABULARY} --input a.en empty.txt --vocab-size 300", "empty.txt is empty"),
    "coverage": (
        f"{VOCABULARY} --input a.en --vocab-size 300 --character-coverage 0.5",
        "--character-coverage: must be in [0.98, 1], got 0.5",
    ),
    "missing model": (
        "encode --sentencepiece-model nothing.model --input a.en --output out.txt",
        "cannot read nothing.model",
    ),
    "broken model": (
        "decode --sentencepiece-model broken.model --input a.en --output out.txt",
        "broken.model is not a sentencepiece model",
    ),
    "incomplete log": (
        "kd-data collect --input g.log --expected-lines 2 --output out.txt",
        "g.log: 1 translations of 2 lines; the first missing id is 1",
    ),
    "log of another set": (
        "kd-data collect --input g.log --source empty.txt --output out.txt",
        "empty.txt is empty",
    ),
    "output over input": ("kd-data collect --input g.log --expected-lines 1 --output g.log", "output g.log is also"),
    "output is a folder": ("kd-data collect --input g.log --expected-lines 1 --output .", "it is a folder"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_error_and_nothing_lost(tmp_path: Path, case: str) -> None:
    command, message = CASES[case]
    for name, content in GOOD.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "fairseq_compress.cli.main", *command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    verb = " ".join(command.split()[: 1 + command.startswith("kd-data")])
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(f"fairseq-compress {verb}: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == GOOD
