"""fairseq's own tests, of a clone of fairseq, against the installed fairseq: without this plugin and with it.

    python benchmarks/fairseq_own_tests.py CHECKOUT [NAME ...] --output DIR [--limit SECONDS] [--jobs N]

``tests/`` and ``scripts/`` of the clone are copied to a temporary folder, so that its ``fairseq/`` cannot shadow the
installed package. Each file runs in two processes of pytest; the second has ``-p fairseq_compress``, which imports the
plugin before fairseq. NAME: a file of the clone's ``tests/``, or a file and a class (``test_a.py::TestB``); by default
``TestTranslation`` of ``test_binaries.py`` and every other ``test_*.py``. DIR/runs keeps each result until the test
file, the plugin or a version changes. DIR/fairseq-own-tests.md and .json are the tables. The exit status is 1 when a
test passes without the plugin and not with it.
"""

import argparse
import concurrent.futures
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"plain": [], "plugin": ["-p", "fairseq_compress"]}
OUTCOMES = ("passed", "failed", "errors", "skipped")
TRANSLATION = "test_binaries.py::TestTranslation"
CAUSE = 120  # characters
Run = dict[str, Any]


def names_of(tests: Path) -> list[str]:
    """What runs without names: the translation tests first, for they take longest."""
    others = sorted(path.name for path in tests.glob("test_*.py") if path.name != "test_binaries.py")
    return [TRANSLATION] * (tests / "test_binaries.py").is_file() + others


def run_once(folder: Path, name: str, way: str, limit: float) -> Run:
    """The outcomes of one file in a process group of its own, which ends at the limit."""
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "results.xml"
        command = [sys.executable, "-m", "pytest", *WAYS[way], "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        command += ["--rootdir", str(folder), "-c", os.devnull, "--junitxml", str(found), f"tests/{name}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": scratch, "WANDB_MODE": "disabled"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
        with (Path(scratch) / "log").open("w+b") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                return {"ended": f"time limit of {limit:g} s", "tests": {}}
            finally:
                end_group(process)
            if not found.is_file():
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines()
                cause = f"signal {-status}" if status < 0 else f"status {status}: {lines[-1] if lines else ''}"
                return {"ended": cause[:CAUSE], "tests": {}}
        return {"ended": "", "tests": dict(outcomes(found))}


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End what pytest started and did not wait for, and pytest itself after the limit."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def outcomes(path: Path) -> Iterable[tuple[str, list[str]]]:
    """Test -> [outcome, beginning of the cause]. A file that cannot be collected is a test with an error."""
    for case in ElementTree.parse(path).iter("testcase"):
        name = "::".join(part for part in (case.get("classname", "").split(".")[-1], case.get("name", "")) if part)
        outcome, cause = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = {"failure": "failed", "error": "errors", "skipped": "skipped"}[child.tag]
                cause = cause_of(child, outcome)
        yield name, [outcome, cause]


def cause_of(child: ElementTree.Element, outcome: str) -> str:
    """The error itself; of a file that cannot be collected pytest's message says no more than that."""
    message, text = child.get("message", ""), (child.text or "").strip()
    if outcome == "errors" and (errors := [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]):
        message = errors[-1]
    plain = re.sub(r"(#x1B|\x1b)\[[0-9;]*m", "", message)  # colours
    return " ".join(plain.split())[:CAUSE]


def counted(run: Run) -> dict[str, Any]:
    found = [outcome for outcome, _ in run["tests"].values()]
    return {outcome: found.count(outcome) for outcome in OUTCOMES} | ({"ended": run["ended"]} if run["ended"] else {})


def compared(name: str, plain: Run, plugin: Run) -> dict[str, Any]:
    """A row of the table: the counts of both, and the tests that differ, with the cause of the failure."""

    def passing(run: Run) -> set[str]:
        return {test for test, (outcome, _) in run["tests"].items() if outcome == "passed"}

    def causes(run: Run, tests: set[str]) -> dict[str, str]:
        return {test: run["tests"].get(test, ["", run["ended"] or "not run"])[1] for test in sorted(tests)}

    def folded(tests: dict[str, str]) -> dict[str, str]:
        """Parametrized tests with the same cause as one."""
        groups: dict[tuple[str, str], list[str]] = {}
        for test, cause in tests.items():
            groups.setdefault((test.split("[")[0], cause[:CAUSE]), []).append(test)
        return {
            tests[0] if len(tests) == 1 else f"{name}[{len(tests)} cases]": cause
            for (name, cause), tests in groups.items()
        }

    before, after = passing(plain), passing(plugin)
    not_passing = {test: cause for test, (outcome, cause) in plugin["tests"].items() if outcome in ("failed", "errors")}
    return {
        "file": name,
        "plain": counted(plain),
        "plugin": counted(plugin),
        "newly_pass": folded(causes(plain, after - before)),
        "newly_fail": folded(causes(plugin, before - after)),
        "fail_both_ways": folded({test: cause for test, cause in sorted(not_passing.items()) if test not in before}),
    }


def versions() -> dict[str, str]:
    packages = {name: metadata.version(name) for name in ("fairseq-fixed", "fairseq-compress", "torch", "numpy")}
    return {"python": platform.python_version(), **packages}


def commit_of(checkout: Path) -> str:
    """The commit of a clone, empty for other folders."""
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    if not (checkout / ".git").exists():  # git would take that of a folder above
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def fingerprint(tests: Path) -> str:
    """Of the versions, the plugin, and what the test files share."""
    digest = hashlib.sha256(json.dumps(versions()).encode())
    shared = [path for path in tests.rglob("*.py") if not path.name.startswith("test_")]
    for path in sorted([*(ROOT / "fairseq_compress").rglob("*.py"), *shared]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kept(path: Path, key: str, run: Callable[[], Run]) -> Run:
    """A result of before with the same key, or a new one."""
    if path.is_file():
        before: Run = json.loads(path.read_text(encoding="utf-8"))
        if before["key"] == key:
            return before
    result = run() | {"key": key}
    write(path, json.dumps(result, indent=1) + "\n")
    return result


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def cells(counts: dict[str, Any]) -> list[str]:
    return [str(counts[outcome]) for outcome in OUTCOMES]


def page(result: dict[str, Any]) -> str:
    """The tables as Markdown."""
    heads = [f"{outcome}, {way}" for way in WAYS for outcome in OUTCOMES]
    lines = [", ".join(f"{name} {version}" for name, version in result["versions"].items()), ""]
    lines += [f"| file | {' | '.join(heads)} | ended early |", "|---|" + "---:|" * len(heads) + "---|"]
    for row in [*result["files"], {"file": "all", **result["total"]}]:
        early = "; ".join(f"{way}: {row[way]['ended']}" for way in WAYS if row[way].get("ended"))
        lines.append(f"| {' | '.join([row['file'], *cells(row['plain']), *cells(row['plugin']), early])} |")
    titles = {
        "newly_fail": "Pass without the plugin only",
        "newly_pass": "Pass with the plugin only, with the error without it",
        "fail_both_ways": "Pass neither way",
    }
    for key, title in titles.items():
        tests = [f"- {row['file']} {test}: {cause}" for row in result["files"] for test, cause in row[key].items()]
        lines += ["", f"{title}: {len(tests)}", *([""] if tests else []), *tests]
    return "\n".join(lines) + "\n"


def total(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    return {way: {outcome: sum(row[way][outcome] for row in rows) for outcome in OUTCOMES} for way in WAYS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a clone of fairseq")
    parser.add_argument("names", nargs="*", metavar="NAME", help="files of its tests/, or FILE::CLASS")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the tables")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for a file (default: %(default)g)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (default: %(default)s)")
    args = parser.parse_args()
    tests = args.checkout / "tests"
    if not (tests / "utils.py").is_file():
        parser.error(f"CHECKOUT: must be a clone of fairseq with tests/utils.py, got {args.checkout}")
    names = args.names or names_of(tests)
    for name in names:
        if not (tests / name.split("::")[0]).is_file():
            parser.error(f"NAME: must be a file of {tests}, got {name}")
    state = fingerprint(tests)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for part in ("tests", "scripts"):
            if (args.checkout / part).is_dir():
                shutil.copytree(args.checkout / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "tests" / "__init__.py").touch()

        def run(name: str, way: str) -> Run:
            source = hashlib.sha256((tests / name.split("::")[0]).read_bytes()).hexdigest()
            path = args.output / "runs" / f"{name.replace('::', '-')}.{way}.json"
            return kept(path, f"{state} {source} {args.limit:g}", lambda: run_once(folder, name, way, args.limit))

        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            pairs = [(name, [pool.submit(run, name, way) for way in WAYS]) for name in names]
            print(f"file: {' '.join(OUTCOMES)}, without the plugin -> with it", flush=True)
            rows = []
            for name, both in pairs:
                row = compared(name, *(future.result() for future in both))
                print(f"{name}: {' '.join(cells(row['plain']))} -> {' '.join(cells(row['plugin']))}", flush=True)
                rows.append(row)
    made = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit_of(args.checkout), "limit_s": args.limit}
    result = {"versions": versions(), **made, "total": total(rows), "files": rows}
    write(args.output / "fairseq-own-tests.json", json.dumps(result, indent=1) + "\n")
    write(args.output / "fairseq-own-tests.md", page(result))
    print()
    print(page(result), end="")
    return int(any(row["newly_fail"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
