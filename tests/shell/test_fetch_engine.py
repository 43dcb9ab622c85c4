"""web/fetch_engine.sh with a npm that fails, or gives something else: one clear line, nothing half made."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

FAILING = "exit 1"
OTHER = (
    'while [[ $1 != --pack-destination ]]; do shift; done; echo other > "$2/browsermt-bergamot-translator-0.4.9.tgz"'
)
STOPPED = f"{OTHER}; kill -TERM $PPID; sleep 1"
TOOLS = "bash cut dirname grep mkdir mktemp mv rm sed sha512sum setpriv sleep tar true"


@pytest.fixture
def fetch(tmp_path):
    for name in ("web/fetch_engine.sh", "scripts/lib/process.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in TOOLS.split():
        (programs / name).symlink_to(
            next(path for path in (Path("/usr/bin", name), Path("/bin", name)) if path.exists())
        )

    def run(npm: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
        if npm is not None:
            (programs / "npm").write_text(f"#!/usr/bin/env bash\n{npm}\n")
            (programs / "npm").chmod(0o755)
        command = ["/bin/bash", str(tmp_path / "web/fetch_engine.sh"), *arguments]
        environment = os.environ | {"PATH": str(programs)}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert sorted(path.name for path in (tmp_path / "web").iterdir() if path.name != "engine") == [
            "fetch_engine.sh"
        ]
        return result

    return run


@pytest.mark.parametrize(
    ("npm", "line"),
    [
        (None, "npm is not installed: apt-get install npm"),
        (FAILING, "npm cannot fetch @browsermt/bergamot-translator 0.4.9"),
        (OTHER, "@browsermt/bergamot-translator 0.4.9: its SHA-512 must be "),
    ],
)
def test_one_line(npm, line, fetch, tmp_path):
    result = fetch(npm)
    assert result.returncode == 1
    assert result.stderr.startswith(f"fetch_engine.sh: error: {line}")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "web/engine").exists()


def test_a_stopped_run_leaves_nothing(fetch, tmp_path):
    assert fetch(STOPPED).returncode != 0
    assert not (tmp_path / "web/engine").exists()


def test_what_is_there_is_kept(fetch, tmp_path):
    (tmp_path / "web/engine").mkdir()
    (tmp_path / "web/engine/package.json").write_text('{"version": "0.4.9"}')
    assert fetch(None).stdout == "@browsermt/bergamot-translator 0.4.9 is in web/engine\n"
    assert fetch(None, "--help").stdout.startswith("Purpose: fetches the engine")
    assert "takes no arguments, got: more" in fetch(None, "more").stderr
