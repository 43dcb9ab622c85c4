"""Sessions of a model directory: opened once for each number of threads, and in the background where that helps."""

import threading

import pytest

from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.onnx import sessions
from fairseq_compress.runtimes.onnx.sessions import WORTH_THREADS, Sessions, begin


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """The calls that open a session, with the thread of each."""
    calls = []

    def open_session(path, threads, spinning):
        calls.append((path.name, threads, spinning, threading.current_thread()))
        if (path.parent / "damaged").exists():
            raise RuntimeError(f"{path.name} is damaged")
        return path.name, threads

    (tmp_path / "weights.bin").write_bytes(b"0")
    monkeypatch.setattr(sessions, "_session", open_session)
    return calls


def test_each_number_of_threads_once(tmp_path, opened):
    both = Sessions(tmp_path, 3)
    assert (both.threads, both.of_one_batch) == (3, 1)
    for threads in (1, 3, 1):
        assert both.open(threads) == (("encoder.onnx", threads), ("step.onnx", threads))
    assert sorted(call[:3] for call in opened) == [
        (name, threads, name == "step.onnx") for name in ("encoder.onnx", "step.onnx") for threads in (1, 3)
    ]


def test_a_small_model_is_opened_in_the_background(tmp_path, opened):
    directory = begin(ModelDirectory(tmp_path, {"runtime": "onnx"}), 2)
    assert directory == ModelDirectory(tmp_path, {"runtime": "onnx"})
    assert directory.loading.open(1) == (("encoder.onnx", 1), ("step.onnx", 1))
    assert len(opened) == 2
    assert threading.main_thread() not in {call[3] for call in opened}


def test_a_large_one_waits_for_its_first_batch(tmp_path, opened):
    with open(tmp_path / "weights.bin", "r+b") as file:
        file.truncate(WORTH_THREADS)
    directory = begin(ModelDirectory(tmp_path, {}), 2)
    assert directory.loading.of_one_batch == 2
    assert opened == []


def test_what_failed_in_the_background_is_told(tmp_path, opened):
    (tmp_path / "damaged").write_text("")
    directory = begin(ModelDirectory(tmp_path, {}), None)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"encoder\.onnx is damaged"):
            directory.loading.open(1)
