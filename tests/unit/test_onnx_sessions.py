"""Sessions of a model directory: opened once for each number of threads, and in the background where that helps."""

import threading

import pytest

from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.onnx import sessions
from fairseq_compress.runtimes.onnx.sessions import WORTH_THREADS, Sessions, begin, decoder
from fairseq_compress.runtimes.options import RuntimeOptions

GRAPHS = ("encoder.onnx", "step.onnx")


def begun(folder, metadata=None, threads=None, **search):
    metadata = {"runtime": "onnx", "search": {"beam": 4}} if metadata is None else metadata
    return begin(ModelDirectory(folder, metadata), RuntimeOptions(search, threads=threads))


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """The calls that open a session, with the thread of each."""
    calls = []

    def open_session(path, threads, spinning):
        calls.append((path.name, threads, spinning, threading.current_thread()))
        if (path.parent / "damaged").exists():
            raise RuntimeError(f"{path.name} is damaged")
        return path.name, threads

    for name in ("weights.bin", "greedy.onnx", "beam.onnx"):
        (tmp_path / name).write_bytes(b"0")
    monkeypatch.setattr(sessions, "_session", open_session)
    return calls


def test_each_number_of_threads_once(tmp_path, opened):
    every = Sessions(tmp_path, 3)
    assert (every.threads, every.of_one_batch) == (3, 1)
    for threads in (1, 3, 1):
        assert every.open(threads, *GRAPHS) == [("encoder.onnx", threads), ("step.onnx", threads)]
    assert every.open(3, "step.onnx") == [("step.onnx", 3)]
    assert sorted(call[:3] for call in opened) == [
        (name, threads, name == "step.onnx") for name in GRAPHS for threads in (1, 3)
    ]


def test_a_small_model_is_opened_in_the_background(tmp_path, opened):
    directory = begun(tmp_path, threads=2)
    assert directory == ModelDirectory(tmp_path, directory.metadata)
    assert directory.loading.open(1, "encoder.onnx", "beam.onnx") == [("encoder.onnx", 1), ("beam.onnx", 1)]
    assert len(opened) == 2
    assert threading.main_thread() not in {call[3] for call in opened}


def test_only_the_graph_that_the_search_needs_is_opened(tmp_path, opened):
    directory = begun(tmp_path, beam=1)
    directory.loading.open(1, "encoder.onnx")
    assert sorted(call[0] for call in opened) == ["encoder.onnx", "greedy.onnx"]


def test_the_graph_of_each_search(tmp_path):
    for beam, name in ((1, "greedy.onnx"), (2, "beam.onnx")):
        assert decoder(tmp_path, SearchOptions(beam=beam)) == "step.onnx"  # in directories of older versions
        (tmp_path / name).write_bytes(b"0")
        for options in ({}, {"lenpen": 2.0}, {"min_len": 5}, {"unkpen": 1.0}, {"max_len_a": 1.0}):
            assert decoder(tmp_path, SearchOptions(beam=beam, **options)) == name
        assert decoder(tmp_path, SearchOptions(beam=beam, no_repeat_ngram_size=3)) == "step.onnx"


def test_a_large_one_waits_for_its_first_batch(tmp_path, opened):
    with open(tmp_path / "weights.bin", "r+b") as file:
        file.truncate(WORTH_THREADS)
    directory = begun(tmp_path, {}, 2)
    assert directory.loading.of_one_batch == 2
    assert opened == []


def test_what_failed_in_the_background_is_told(tmp_path, opened):
    (tmp_path / "damaged").write_text("")
    directory = begun(tmp_path)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"encoder\.onnx is damaged"):
            directory.loading.open(1, *GRAPHS)
