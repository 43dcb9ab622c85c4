"""Strict reading and atomic writing."""

import os
from pathlib import Path

import pytest

from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.work.files import (
    atomic_write,
    check_distinct,
    check_not_empty,
    check_parallel,
    count_lines,
    read_lines,
)


def test_atomic_write_makes_folders_and_leaves_only_the_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_write(target) as stream:
        stream.write("příliš\n")
        assert not target.exists()
    assert target.read_bytes() == "příliš\n".encode()
    assert os.listdir(target.parent) == ["a.txt"]


def test_atomic_write_of_bytes(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.bin", "wb") as stream:
        stream.write(b"\x00\xff")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_in_mid_write_keeps_the_old_file_and_no_half_file(tmp_path: Path, failure: type) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old\n")

    def write_half() -> None:
        with atomic_write(target) as stream:
            stream.write("half of the n")
            stream.flush()
            raise failure

    with pytest.raises(failure):
        write_half()
    assert target.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_write_keeps_a_link_and_a_device(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    with atomic_write(tmp_path / "link.txt") as stream:
        stream.write("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"
    with atomic_write(os.devnull) as stream:
        stream.write("gone")
    assert not os.path.isfile(os.devnull)


def test_atomic_write_refuses_a_folder_a_file_as_folder_and_other_modes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"), atomic_write(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot make the folder"), atomic_write(tmp_path / "file" / "a"):
        pass
    with pytest.raises(ConfigError, match="mode"), atomic_write(tmp_path / "a", "a"):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\nb", ["a", "b"]),
        (b"\n\n", ["", ""]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        ("a\u2028b\u0085c\x0bd\x0ce\x1cf\rg\n".encode(), ["a\u2028b\u0085c\x0bd\x0ce\x1cf\rg"]),
    ],
)
def test_lines_end_at_line_feeds_only(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert list(read_lines(path)) == lines
    assert count_lines(path) == len(lines)


def test_counting_over_several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairseq_compress.work.files.COUNT_BLOCK_BYTES", 3)
    path = tmp_path / "a.txt"
    path.write_bytes(b"ab\ncd\n\nefgh")
    assert count_lines(path) == 4


def test_not_utf8_names_file_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin2.txt"
    path.write_bytes("dobrý\n".encode() + "řeka".encode("iso-8859-2") + b"\n")
    with pytest.raises(DataError, match=r"latin2\.txt, line 2: not valid UTF-8 \(byte 0xf8 at column 1\)"):
        list(read_lines(path))


@pytest.mark.parametrize("function", [count_lines, check_not_empty, lambda path: list(read_lines(path))])
def test_a_missing_file_is_named(tmp_path: Path, function) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nothing\.txt: No such file"):
        function(tmp_path / "nothing.txt")


def test_parallel_files_need_equal_counts(tmp_path: Path) -> None:
    source, target = tmp_path / "a.en", tmp_path / "a.cs"
    source.write_text("1\n2\n3")
    target.write_text("1\n2\n")
    with pytest.raises(DataError, match=r"a\.en has 3, .*a\.cs has 2"):
        check_parallel(source, target)
    target.write_text("1\n2\n3\n")
    assert check_parallel(source, target) == 3
    target.write_text("")
    with pytest.raises(DataError, match=r"a\.cs is empty"):
        check_parallel(source, target)


def test_a_pipe_cannot_be_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="read twice"):
        check_not_empty(tmp_path / "pipe")


def test_outputs_must_differ_from_inputs_and_each_other(tmp_path: Path) -> None:
    check_distinct([tmp_path / "a"], [tmp_path / "b", tmp_path / "c"])
    with pytest.raises(ConfigError, match="choose another name"):
        check_distinct([tmp_path / "a"], [tmp_path / "x" / ".." / "a"])
    with pytest.raises(ConfigError, match="choose another name"):
        check_distinct([], [tmp_path / "b", tmp_path / "b"])
