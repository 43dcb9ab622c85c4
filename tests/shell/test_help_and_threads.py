"""What every script says of itself; how many threads and trainings work at a time, and that none of them spins."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.fake_pipeline import ROOT, Pipeline

SCRIPTS = sorted(
    [*ROOT.glob("scripts/*.sh"), *ROOT.glob("scripts/stages/*.sh"), *ROOT.glob("scripts/experiments/*.sh")]
)


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / "data/download.sh"], ids=lambda path: path.name)
@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_is_the_head_of_the_script(script: Path, arguments: list[str], tmp_path: Path) -> None:
    result = subprocess.run(
        ["bash", str(script), *arguments], cwd=tmp_path, text=True, capture_output=True, timeout=60, check=True
    )
    lines = result.stdout.splitlines()
    head = script.read_text().splitlines()[1 : len(lines) + 1]
    assert [f"# {line}".rstrip() for line in lines] == head
    for word in ("Purpose: ", "Inputs: ", "Outputs: ", "Example: "):
        assert any(word in line for line in lines), f"{script.name} does not tell its {word}"
    assert not result.stderr
    assert not list(tmp_path.iterdir())


def test_help_behind_other_arguments(pipeline: Pipeline) -> None:
    assert pipeline.run("--from", "04", "--help").stdout.startswith("Purpose: runs the stages")
    assert not pipeline.work.exists()


def test_help_of_a_command_that_a_launcher_starts(tmp_path: Path) -> None:
    environment = os.environ | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    command = ["bash", str(ROOT / "scripts/lib/work_process.sh"), "printf", "%s", "--help"]
    assert subprocess.run(command, env=environment, text=True, capture_output=True, check=True).stdout == "--help"


def threads_of(pipeline: Pipeline, student: str) -> str:
    """What its training was told of threads, as the fake one prints it."""
    (line,) = (line for line in pipeline.run_log(f"train-{student}").splitlines() if line.startswith("threads: "))
    return line.removeprefix("threads: ")


def cores(pipeline: Pipeline, number: int) -> dict[str, str]:
    """An environment that has so many."""
    folder = pipeline.folder / "cores"
    folder.mkdir()
    (folder / "nproc").write_text(f"#!/bin/sh\necho {number}\n")
    (folder / "nproc").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("number", "environment", "threads", "at_a_time"),
    [
        (2, {"JOBS": "auto"}, "1", True),
        (8, {"JOBS": "auto"}, "4", True),  # of two students
        (1, {"JOBS": "auto"}, "all", False),
        (2, {"JOBS": "1"}, "all", False),
        (2, {"JOBS": "auto", "OMP_NUM_THREADS": "3"}, "3", True),
    ],
)
def test_students_share_the_cores(
    finished: Pipeline, number: int, environment: dict[str, str], threads: str, at_a_time: bool
) -> None:
    finished.environment.pop("OMP_NUM_THREADS", None)
    finished.environment.pop("OMP_WAIT_POLICY", None)
    finished.set(STUDENT_LR="1e-3")
    shutil.rmtree(finished.work / "logs")
    output = finished.run("--from", "07", "--to", "07", **cores(finished, number), **environment).stdout
    assert ("one: run train-one " in output) == at_a_time
    assert [threads_of(finished, student) for student in ("one", "two")] == [f"{threads} passive"] * 2


def test_one_student_alone_has_all_cores(finished: Pipeline) -> None:
    finished.environment.pop("OMP_NUM_THREADS", None)
    finished.set(STUDENT_LR="1e-3")
    shutil.rmtree(finished.work / "logs")
    finished.run("two", script="stages/07_train_students.sh", JOBS="auto", OMP_WAIT_POLICY="active")
    assert threads_of(finished, "two") == "all active"
