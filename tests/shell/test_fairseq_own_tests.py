"""scripts/experiments/fairseq_own_tests.sh on a clone of fairseq with a few tests of ours in place of fairseq's."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.experiments import ROOT

NEEDS_THE_PLUGIN = """
import unittest
import numpy, torch
from fairseq import checkpoint_utils
from tests.utils import PATH

class TestTranslation(unittest.TestCase):
    def test_a_checkpoint_with_numpy_values_loads(self):
        history = {"criterion_name": "A", "optimizer_name": "B", "lr_scheduler_state": {}, "num_updates": 3}
        extra = {"best": numpy.float64(1.5), "train_iterator": {}}
        torch.save({"model": {}, "args": None, "optimizer_history": [history], "extra_state": extra}, PATH)
        assert checkpoint_utils.load_checkpoint_to_cpu(PATH)["extra_state"]["best"] == 1.5

class TestLanguageModeling(unittest.TestCase):
    def test_that_does_not_run_by_default(self):
        assert False
"""
FILES = {
    "fairseq/__init__.py": "raise ImportError('the folder of the clone shadows the installed package')",
    "scripts/__init__.py": "",
    "scripts/tool.py": "ANSWER = 42",
    "tests/utils.py": "import tempfile\nPATH = tempfile.mkdtemp() + '/c.pt'",
    "tests/test_binaries.py": NEEDS_THE_PLUGIN,
    "tests/test_any.py": "import pytest\nfrom scripts.tool import ANSWER\n"
    "def test_one(): assert ANSWER == 42\n"
    "@pytest.mark.parametrize('x', [1, 2])\ndef test_two(x): assert 1 + 1 == 3\n"
    "@pytest.mark.skip\ndef test_three(): pass",
    "tests/test_uncollectable.py": "import no_such_module",
    "tests/test_alone.py": "import sys\ndef test_it(): assert 'fairseq_compress' not in sys.modules",
}
COUNTS = ("passed", "failed", "errors", "skipped")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone of fairseq")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run(clone: Path | str, *names: str, work: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(ROOT / "scripts/experiments/fairseq_own_tests.sh"), str(clone), *names],
        env=os.environ | {"WORK_DIR": str(work), "JOBS": "1"} | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    work = tmp_path_factory.mktemp("work")
    return run(clone, work=work), work


def row(work: Path, name: str) -> tuple[dict, list[int], list[int]]:
    (found,) = (
        each for each in json.loads((work / "fairseq-own-tests.json").read_text())["files"] if each["file"] == name
    )
    return found, [found["plain"][key] for key in COUNTS], [found["plugin"][key] for key in COUNTS]


def test_a_test_that_needs_the_plugin_newly_passes(finished: tuple) -> None:
    found, plain, plugin = row(finished[1], "test_binaries.py::TestTranslation")
    assert (plain, plugin) == ([0, 1, 0, 0], [1, 0, 0, 0])
    ((name, cause),) = found["newly_pass"].items()
    assert name == "TestTranslation::test_a_checkpoint_with_numpy_values_loads"
    assert "Weights only load failed" in cause


def test_other_files_run_alike_both_ways(finished: tuple) -> None:
    found, plain, plugin = row(finished[1], "test_any.py")
    assert plain == plugin == [1, 2, 0, 1]
    assert list(found["fail_both_ways"]) == ["test_any::test_two[2 cases]"]
    found, plain, plugin = row(finished[1], "test_uncollectable.py")
    assert plain == plugin == [0, 0, 1, 0]
    assert list(found["fail_both_ways"].values()) == ["ModuleNotFoundError: No module named 'no_such_module'"]


def test_a_test_that_newly_fails_is_told_and_is_the_exit_status(finished: tuple) -> None:
    result, work = finished
    assert list(row(work, "test_alone.py")[0]["newly_fail"]) == ["test_alone::test_it"]
    assert result.returncode == 1
    page = (work / "fairseq-own-tests.md").read_text()
    assert result.stdout.endswith(page)
    assert "Pass without the plugin only: 1\n\n- test_alone.py test_alone::test_it: " in page
    assert "| all | 2 | 3 | 1 | 1 | 2 | 3 | 1 | 1 |  |" in page
    assert not list(work.rglob("*.tmp"))


def test_results_are_kept_until_a_test_file_changes(clone: Path, finished: tuple) -> None:
    _, work = finished
    kept = {path: path.stat().st_mtime_ns for path in (work / "runs").iterdir()}
    assert len(kept) == 8
    (clone / "tests/test_any.py").write_text("def test_one(): pass")
    assert run(clone, "test_any.py", "test_binaries.py::TestTranslation", work=work).returncode == 0
    changed = {path.name for path, time in kept.items() if path.stat().st_mtime_ns != time}
    assert changed == {"test_any.py.plain.json", "test_any.py.plugin.json"}


def test_a_file_that_does_not_end_is_stopped(clone: Path, tmp_path: Path) -> None:
    (clone / "tests/test_slow.py").write_text("import time\ndef test_it(): time.sleep(600)")
    result = run(clone, "test_slow.py", work=tmp_path, LIMIT="2")
    assert result.returncode == 0
    assert row(tmp_path, "test_slow.py")[0]["plugin"]["ended"] == "time limit of 2 s"
    assert "plain: time limit of 2 s; plugin: time limit of 2 s" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere"], "CHECKOUT must be a clone of fairseq with tests/utils.py, got '/nowhere'"),
        ([], "usage: fairseq_own_tests.sh CHECKOUT"),
    ],
)
def test_what_is_no_clone_is_refused(arguments: list[str], message: str) -> None:
    script = str(ROOT / "scripts/experiments/fairseq_own_tests.sh")
    result = subprocess.run(["bash", script, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert message in result.stderr
