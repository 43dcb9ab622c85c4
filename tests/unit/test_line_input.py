"""Lines of pipes, files and memory, with the pauses of who writes them."""

import io
import os
import threading
import time

from fairseq_compress.decoding import line_input
from fairseq_compress.decoding.line_input import read_lines, read_lines_as_they_come


def pipe(*writes, pause=0.4):
    """A pipe into which a thread writes, with pauses."""
    reader, writer = os.pipe()

    def write():
        for number, data in enumerate(writes):
            time.sleep(pause if number else 0)
            os.write(writer, data)
        os.close(writer)

    threading.Thread(target=write).start()
    return open(reader, "rb")


def test_pauses_of_a_pipe():
    waits = []
    with pipe(b"a\nb\r\n", b"", b"c", b"\n\nd") as stream:
        items = list(read_lines_as_they_come(stream, lambda: waits.append(1)))
    assert [item for item in items if item is not None] == [b"a", b"b", b"c", b"", b"d"]
    assert items[:3] == [b"a", b"b", None]  # though the pipe is open
    assert items.index(b"c") > 2
    assert len(waits) >= 2


def test_what_is_written_is_flushed_before_it_waits():
    """The lines before a pause were all taken when the reader waits."""
    taken, at_waits = [], []
    with pipe(b"a\n", b"b\n") as stream:
        for item in read_lines_as_they_come(stream, lambda: at_waits.append(len([each for each in taken if each]))):
            taken.append(item)
    assert at_waits[-2:] == [1, 2] or at_waits[-1] == 1
    assert taken[:2] == [b"a", None]


def test_a_steady_stream_is_answered_too(monkeypatch):
    monkeypatch.setattr(line_input, "PAUSE_SECONDS", 5.0)
    monkeypatch.setattr(line_input, "LONGEST_WAIT", 0.2)
    with pipe(*(b"line\n" for _ in range(8)), pause=0.1) as stream:
        items = list(read_lines_as_they_come(stream, lambda: None))
    assert items.count(b"line") == 8
    assert 1 <= items.count(None) <= 5


def test_a_full_pipe_has_no_pauses_for_a_slow_reader(monkeypatch):
    """Otherwise the batches would depend on the speed of the model."""
    monkeypatch.setattr(line_input, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(line_input, "CHUNK", 5)
    items = []
    with pipe(b"line\n" * 8, pause=0) as stream:
        time.sleep(0.05)  # all of it is there
        for item in read_lines_as_they_come(stream, lambda: None):
            time.sleep(0.1)
            items.append(item)
    assert items == [b"line"] * 8


def test_files_and_memory_have_no_pauses(tmp_path):
    text = b"a\r\n\nb \xff\nc"
    (tmp_path / "text").write_bytes(text)
    expected = [b"a", b"", b"b \xff", b"c"]
    with open(tmp_path / "text", "rb") as stream:
        assert list(read_lines_as_they_come(stream, lambda: None)) == expected
    assert list(read_lines_as_they_come(io.BytesIO(text), lambda: None)) == expected
    assert list(read_lines(io.BytesIO(text))) == expected
    with open(os.devnull, "rb") as stream:
        assert list(read_lines_as_they_come(stream, lambda: None)) == []


def test_where_nothing_tells_of_pauses(monkeypatch):
    monkeypatch.setattr(line_input.os, "name", "nt")
    with pipe(b"a\n", b"b\n") as stream:
        assert list(read_lines_as_they_come(stream, lambda: None)) == [b"a", b"b"]


def test_long_lines_come_whole():
    line = b"x" * 300_000
    with pipe(line[:100_000], line[100_000:] + b"\n", b"y\n", pause=0.05) as stream:
        items = [item for item in read_lines_as_they_come(stream, lambda: None) if item is not None]
    assert items == [line, b"y"]
