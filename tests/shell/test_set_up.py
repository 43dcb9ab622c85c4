"""bootstrap.sh and download.sh with a machine that lacks something: one clear line, nothing half made."""

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.fake_pipeline import ROOT

TOOLS = """
awk bash cat chmod cp cut df dirname find flock gawk grep gzip head mawk mkdir mv realpath rm sed setpriv sha256sum
tail tar true wc
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that bootstrap.sh reads, in a folder with no virtual environment."""
    for name in ("scripts/bootstrap.sh", "scripts/lib/process.sh", "constraints.txt", "setup.py"):
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone" / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path / "clone"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH with ordinary tools, without compilers, Python or curl."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in TOOLS.split():
        for place in ("/usr/bin", "/bin"):
            if os.path.exists(f"{place}/{name}") and not (folder / name).exists():
                (folder / name).symlink_to(f"{place}/{name}")
    return folder


def add_tool(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def bootstrap(clone: Path, tools: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(clone / "scripts/bootstrap.sh")],
        env={"PATH": str(tools), "HOME": ""} | environment, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def assert_one_line(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


def test_no_python(clone: Path, tools: Path) -> None:
    assert_one_line(bootstrap(clone, tools), "Python 3.11, 3.12 or 3.13 is needed, but none was found")
    assert not (clone / ".venv").exists()


def test_unsupported_python(clone: Path, tools: Path) -> None:
    add_tool(tools, "old-python", '[ "$1" = --version ] && echo Python 3.9.1; exit 1')
    result = bootstrap(clone, tools, PYTHON="old-python")
    assert_one_line(result, "PYTHON must be Python 3.11, 3.12 or 3.13, got 'old-python' (Python 3.9.1)")


def test_no_compiler(clone: Path, tools: Path) -> None:
    assert_one_line(bootstrap(clone, tools, PYTHON=sys.executable), "gcc is needed to build fairseq")


@pytest.mark.parametrize(
    ("index", "gigabytes"), [("", "12 GB are needed for torch"), ("https://some.index", "4 GB are")]
)
def test_full_disk(clone: Path, tools: Path, index: str, gigabytes: str) -> None:
    (tools / "df").unlink()
    add_tool(tools, "df", "echo header; echo disk 9 9 1048576 9% /")
    for name in ("gcc", "g++"):
        add_tool(tools, name, "exit 0")
    result = bootstrap(clone, tools, PYTHON=sys.executable, PIP_EXTRA_INDEX_URL=index)
    assert_one_line(result, f"{clone} has 1 GB of free disk space, {gigabytes}")


@pytest.mark.parametrize("wheel", ["missing/fairseq_fixed-1.whl", "clone/setup.py"])
def test_a_fairseq_wheel_that_is_none(clone: Path, tools: Path, tmp_path: Path, wheel: str) -> None:
    result = bootstrap(clone, tools, PYTHON=sys.executable, FAIRSEQ_WHEEL=str(tmp_path / wheel))
    assert_one_line(result, "FAIRSEQ_WHEEL must be a wheel of build_fairseq_wheel.sh, got", wheel)


def test_a_fairseq_wheel_needs_no_compiler(clone: Path, tools: Path, tmp_path: Path) -> None:
    """pip gets the wheel in place of the source, and the extras of everything."""
    wheel = tmp_path / "fairseq_fixed-0.12.3.1-cp311-cp311-linux_x86_64.whl"
    wheel.touch()
    (tools / "df").unlink()
    add_tool(tools, "df", "echo header; echo disk 99999999 9 99999999 9% /")
    script = f"""
        case "$*" in
            "-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
            *install*) echo "$@" >>{tmp_path}/asked ;;
        esac
    """
    add_tool(tools, "a-python", script)
    result = bootstrap(clone, tools, PYTHON=str(tools / "a-python"), FAIRSEQ_WHEEL=str(wheel))
    assert result.returncode == 0, result.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in asked[1:]] == ["torch==2.13.0", str(wheel), ".[all,dev]"]
    assert "compiles" not in result.stdout


def let_the_machine_do(clone: Path, tools: Path) -> None:
    """A disk, compilers and Python's header, as bootstrap.sh asks for them."""
    (clone / "Python.h").touch()
    (tools / "df").unlink()
    add_tool(tools, "df", "echo header; echo disk 99999999 9 99999999 9% /")
    for name in ("gcc", "g++"):
        add_tool(tools, name, "exit 0")


def test_packages_that_do_not_work_together(clone: Path, tools: Path, tmp_path: Path) -> None:
    """The second try is made without pip's cache, which may hold a fairseq of another torch."""
    let_the_machine_do(clone, tools)
    script = f"""
        case "$*" in
            *get_paths*) echo {clone} ;;
            *libnat*) exit 1 ;;
            "-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
            *install*fairseq-fixed*) echo "cache ${{PIP_NO_CACHE_DIR:-0}}" >>{tmp_path}/asked ;;
        esac
    """
    add_tool(tools, "a-python", script)
    result = bootstrap(clone, tools, PYTHON=str(tools / "a-python"))
    assert_one_line(result, "the packages were installed but do not work together")
    assert (tmp_path / "asked").read_text().splitlines() == ["cache 0", "cache 1"]


def build_wheel(tools: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(ROOT / "scripts/build_fairseq_wheel.sh"), *map(str, arguments)],
        env={"PATH": str(tools), "HOME": "/"} | environment, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_fairseq_wheel(tools: Path, tmp_path: Path) -> None:
    """It appears whole in its folder; a build that fails leaves nothing."""
    for name in ("mktemp", "basename"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    assert_one_line(
        build_wheel(tools, tmp_path / "w", PYTHON="none"), "PYTHON must be Python 3.11, 3.12 or 3.13, got 'none'"
    )
    add_tool(tools, "a-python", 'case "$*" in *"import Cython"*) exit 1 ;; esac')
    python = str(tools / "a-python")
    assert_one_line(build_wheel(tools, tmp_path / "w", PYTHON=python), "has no package cython: pip install torch numpy")
    add_tool(tools, "a-python", "exit 0")
    assert_one_line(build_wheel(tools, tmp_path / "w", PYTHON=python), "gcc is needed to build fairseq")
    for name in ("gcc", "g++"):
        add_tool(tools, name, "exit 0")
    add_tool(tools, "a-python", 'case "$*" in *"pip wheel"*) exit 1 ;; esac')
    assert_one_line(build_wheel(tools, tmp_path / "w", PYTHON=python), "could not build fairseq-fixed==0.12.3.1")
    assert os.listdir(tmp_path / "w") == []
    script = """
        case "$*" in *"pip wheel"*)
            while [ "$1" != --wheel-dir ]; do shift; done
            echo whole >"$2/fairseq_fixed-0.12.3.1-cp311-cp311-linux_x86_64.whl" ;;
        esac
    """
    add_tool(tools, "a-python", script)
    result = build_wheel(tools, tmp_path / "w", PYTHON=python)
    assert result.returncode == 0, result.stderr
    assert os.listdir(tmp_path / "w") == ["fairseq_fixed-0.12.3.1-cp311-cp311-linux_x86_64.whl"]


@pytest.fixture
def pythons(clone: Path, tools: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """check_pythons.sh in a small repository; python3.12 is one whose pytest fails while the file 'broken' is there."""
    for name in ("scripts/check_pythons.sh", "fairseq_compress/__init__.py", "pyproject.toml"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes((ROOT / name).read_bytes())
    for name in ("tests", "configs", "data", "docs"):
        (clone / name).mkdir()
    for name in ("sort", "xargs", "find", "tail"):
        if not (tools / name).exists():
            (tools / name).symlink_to(f"/usr/bin/{name}")
    script = """
        case "$*" in
            "-m venv"*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; : >"$4/bin/pip"; chmod +x "$4/bin/pip" ;;
            *"pip install"*) echo "$@" ;;
            *pytest*tests/unit) [ ! -f broken ] || { echo 1 failed; exit 1; }; echo 9 passed ;;
            *pytest*) echo 2 passed ;;
            *version.split*) echo "Python 3.12.1 torch 2" ;;
        esac
    """
    add_tool(tools, "python3.12", script)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(clone / "scripts/check_pythons.sh"), *arguments], env={"PATH": str(tools), "HOME": "/none"},
            text=True, capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def test_other_pythons(pythons: Callable[..., subprocess.CompletedProcess[str]], clone: Path) -> None:
    """What passed is not repeated until a file changes; what fails is named, and the rest runs all the same."""
    (clone / "broken").touch()
    assert_one_line(pythons("3.12"), "failed: 3.12: unit tests; see the logs in")
    (clone / "broken").unlink()
    result = pythons("3.12")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "check_pythons: 3.12, install: passed already", "check_pythons: 3.12, use: passed already",
        "check_pythons: 3.12, unit", "3.12: Python 3.12.1 torch 2", "3.12.use.log: 2 passed", "3.12.unit.log: 9 passed",
    ]  # fmt: skip
    (clone / "tests/new.py").touch()
    assert "3.12, unit\n" in pythons("3.12").stdout
    log = (clone / ".pythons/3.12.install.log").read_text()
    assert "--no-cache-dir --no-binary fairseq-fixed --no-build-isolation fairseq-fixed==0.12.3.1" in log
    assert "-e .[all,dev]" in log


def test_pythons_that_are_not_there(pythons: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert_one_line(pythons("3.10"), "takes 3.11, 3.12, 3.13 and --oldest, got '3.10'")
    assert_one_line(pythons("3.13"), "Python 3.13 is needed, but was not found")


def test_pip_that_is_killed(clone: Path, tools: Path) -> None:
    let_the_machine_do(clone, tools)
    script = f"""
        case "$*" in
            *get_paths*) echo {clone} ;;
            "-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo "ERROR: an old one" >.venv/bootstrap.log ;;
            *install*) echo Collecting; exit 137 ;;
        esac
    """
    add_tool(tools, "a-python", script)
    result = bootstrap(clone, tools, PYTHON=str(tools / "a-python"))
    assert_one_line(result, "could not install: pip and build tools; see .venv/bootstrap.log")


def test_nothing_to_do(clone: Path, tools: Path) -> None:
    """With the stamp there, not even Python is looked for; a stamp of another place or version does not count."""
    stamp = subprocess.run(
        "cat scripts/bootstrap.sh constraints.txt setup.py | sha256sum | cut -c 1-16",
        shell=True, cwd=clone, text=True, capture_output=True, check=True,
    ).stdout.strip()  # fmt: skip
    (clone / ".venv").mkdir()
    (clone / f".venv/.bootstrap-{stamp}").write_text(f"{clone}\n")
    assert bootstrap(clone, tools).returncode == 0
    (clone / f".venv/.bootstrap-{stamp}").write_text("/elsewhere\n")
    assert bootstrap(clone, tools).returncode == 1
    (clone / f".venv/.bootstrap-{stamp}").write_text(f"{clone}\n")
    (clone / "constraints.txt").write_text((clone / "constraints.txt").read_text() + "# changed\n")
    assert bootstrap(clone, tools).returncode == 1


def test_constraints_pin_everything_without_places() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert "fairseq-fixed==0.12.3.1" in pins
    assert all(line.count("==") == 1 and "/" not in line and "+" not in line and "@" not in line for line in pins)


def download(folder: Path, tools: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(ROOT / "data/download.sh"), *arguments],
        env={"PATH": str(tools)} | environment, cwd=folder, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def fake_curl(tmp_path: Path, tools: Path, lines: dict[str, int]) -> Path:
    """A curl that finds multi30k's files in a folder; what it is asked for goes to a file."""
    server = tmp_path / "server"
    server.mkdir()
    for part, count in lines.items():
        for lang in ("en", "cs"):
            (server / f"{part}.{lang}.gz").write_bytes(gzip.compress(b"a line\n" * count))
    script = f"""
        for word; do last=$word; done
        while [ "$1" != --output ]; do shift; done
        echo "$last" >>{tmp_path}/asked
        cat "{server}/${{last##*/}}" >"$2" 2>/dev/null || {{ echo "curl: (6) no network" >&2; exit 6; }}
    """
    add_tool(tools, "curl", script)
    return server


def test_download_multi30k(tmp_path: Path, tools: Path) -> None:
    server = fake_curl(tmp_path, tools, {"train": 29000, "val": 1014, "test_2016_flickr": 1000})
    held_back = (server / "val.cs.gz").rename(tmp_path / "val.cs.gz")
    offline = download(tmp_path, tools, "multi30k", "raw")
    assert offline.returncode == 1
    assert "cannot fetch https://raw.githubusercontent.com/multi30k/" in offline.stderr.splitlines()[-1]
    held_back.rename(server / "val.cs.gz")
    assert download(tmp_path, tools, "multi30k", "raw").returncode == 0
    assert sorted(os.listdir(tmp_path / "raw")) == [
        f"{part}.{lang}" for part in ("test_2016_flickr", "train", "val") for lang in ("cs", "en")
    ]
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 7  # six files and the one that failed: none twice
    assert download(tmp_path, tools, "multi30k", "raw").returncode == 0
    assert len((tmp_path / "asked").read_text().splitlines()) == 7


def test_download_checks_line_counts(tmp_path: Path, tools: Path) -> None:
    fake_curl(tmp_path, tools, {"train": 28999, "val": 1014, "test_2016_flickr": 1000})
    result = download(tmp_path, tools, "multi30k", "raw")
    assert_one_line(result, "both sides must have 29000 lines, got 28999 (en) and 28999 (cs)")
    assert os.listdir(tmp_path / "raw") == []


def test_download_wmt(tmp_path: Path, tools: Path) -> None:
    server = fake_curl(tmp_path, tools, {})
    for name in ("europarl-v10", "news-commentary-v16"):
        (server / f"{name}.cs-en.tsv.gz").write_bytes(gzip.compress("Dobrý den.\tGood day.\n".encode() * 3))
    for lang in ("en", "cs"):
        (tmp_path / f"commoncrawl.cs-en.{lang}").write_text("crawled\n" * 4)
    subprocess.run(
        ["tar", "-czf", server / "training-parallel-commoncrawl.tgz", "commoncrawl.cs-en.en", "commoncrawl.cs-en.cs"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    add_tool(tools, "sacrebleu", 'case $2 in wmt18) n=2983 ;; wmt19) n=1997 ;; esac; yes "$6" | head -n $n')
    (tools / "yes").symlink_to("/usr/bin/yes")
    result = download(tmp_path, tools, "wmt", "raw", SACREBLEU=str(tools / "sacrebleu"))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "raw/europarl-v10.cs").read_text() == "Dobrý den.\n" * 3
    assert (tmp_path / "raw/europarl-v10.en").read_text() == "Good day.\n" * 3
    assert (tmp_path / "raw/commoncrawl.en").read_text() == "crawled\n" * 4
    assert (tmp_path / "raw/newstest2019.cs").read_text() == "ref\n" * 1997
    assert len(os.listdir(tmp_path / "raw")) == 10


def test_download_of_something_else(tmp_path: Path, tools: Path) -> None:
    assert_one_line(download(tmp_path, tools, "paracrawl"), "CORPUS must be multi30k or wmt, got 'paracrawl'")
