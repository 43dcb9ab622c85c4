"""Cores and locks, also where the operating system has neither ``sched_getaffinity`` nor ``fcntl``."""

import errno
import os
import subprocess
import sys

import pytest

from fairseq_compress import system
from fairseq_compress.export.model_writer import create_directory
from fairseq_compress.system import available_cores, default_threads, lock_file, take_lock


def fill(folder):
    (folder / "model.bin").write_bytes(b"weights")
    return {}


def test_cores(monkeypatch):
    assert available_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert available_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


@pytest.mark.parametrize(
    ("given", "threads"),
    [("1", 1), ("3", 3), ("64", 64), (" 2 ", 2), ("4,2", 4), ("", 5), ("0", 5), ("-1", 5), ("all", 5), (None, 5)],
)
def test_threads_are_those_of_the_environment_or_all_cores(given, threads, monkeypatch):
    monkeypatch.setattr(system, "available_cores", lambda: 5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert default_threads() == threads


def test_a_lock_is_taken_once_and_ends_with_its_file(tmp_path):
    with open(tmp_path / "file", "wb") as first:
        assert take_lock(first)
        with open(tmp_path / "file", "rb") as second:
            assert lock_file(second.fileno()) is False
            assert not take_lock(second)
    with open(tmp_path / "file", "rb") as third:
        assert lock_file(third.fileno()) is True


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def refuse_with(code):
        def refuse(file, operation):
            raise OSError(code, "flock")

        monkeypatch.setattr(system.fcntl, "flock", refuse)

    with open(tmp_path / "file", "wb") as file:
        for code in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            refuse_with(code)
            assert lock_file(file.fileno()) is None
            assert take_lock(file)
        refuse_with(errno.EIO)
        with pytest.raises(OSError, match="flock"):
            take_lock(file)
    assert f"no file locks on this system: make sure that no other process writes {tmp_path / 'file'}" in caplog.text


def test_model_directories_are_written_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "fcntl", None)
    assert create_directory(tmp_path / "model", fill).path.is_dir()
    assert os.listdir(tmp_path) == ["model"]


def test_the_package_has_no_other_use_of_them():
    command = ["grep", "-rlE", r"\bfcntl\b|sched_getaffinity", "--include=*.py", os.path.dirname(system.__file__)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert [os.path.basename(path) for path in found] == ["system.py"]


def test_imports_without_fcntl():
    code = (
        "import os, sys; sys.modules['fcntl'] = None; del os.sched_getaffinity\n"
        "import fairseq_compress.system as system, fairseq_compress.work.sharded\n"
        "assert system.fcntl is None and system.available_cores() >= 1 and system.lock_file(0) is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
