"""What the tests of scripts/experiments share."""

import os
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def dry_run(script: str, folder: Path, **variables: str) -> list[list[str]]:
    """The commands that an experiment on Multi30k would run, on text made in ``folder``, with ``folder/work``."""
    for name in ("train", "val", "test_2016_flickr"):
        for language in ("en", "cs"):
            (folder / f"{name}.{language}").write_text("a b c\n" * 20)
    environment = os.environ | {"RAW_DIR": str(folder), "WORK_DIR": str(folder / "work")} | variables
    command = ["bash", str(ROOT / "scripts/experiments" / script), "--dry-run"]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert not (folder / "work").exists()
    return [shlex.split(line) for line in output.splitlines() if line and not line.startswith(("#", "=="))]


def value(command: list[str], option: str) -> str:
    """Of an option that is given several times the last one, as argparse takes it."""
    return command[len(command) - command[::-1].index(option)]
