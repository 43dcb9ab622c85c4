"""The n-best file: written and read back, and every way in which it can be off."""

import hashlib
import json
import math
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_compress.corpus.nbest import (
    NBestEntry,
    NBestList,
    NBestWriter,
    format_list,
    read_nbest,
    source_checksum,
    untranslated,
)
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import file_sha256
from fairseq_compress.work.manifest import sidecar_path

SOURCES = ["▁a ▁b", "", "▁pří liš", "▁a ▁b", "▁c"]
SCORES = [[-0.5, -0.5, -1.25], [0.0], [-3.0, -12.000001], None, [-0.1]]
one_line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"))


def make_lists(sources: list[str] = SOURCES) -> list[NBestList]:
    lists = []
    for index, (source, scores) in enumerate(zip(sources, SCORES, strict=True)):
        checksum = source_checksum(source)
        hypotheses = [NBestEntry(score, f"▁h {index}\t{k}") for k, score in enumerate(scores or [])]
        lists.append(NBestList(index, checksum, hypotheses) if scores else untranslated(index, checksum))
    return lists


def write(folder: Path, lists: list[NBestList], sources: list[str] = SOURCES) -> tuple[Path, Path]:
    """An n-best file with its sidecar, and its source."""
    source, path = folder / "source", folder / "n"
    source.write_text("".join(f"{line}\n" for line in sources))
    with open(path, "wb") as stream:
        writer = NBestWriter(stream)
        for nbest in lists:
            writer.write(nbest)
    writer.write_sidecar(path, file_sha256(source), {"beam": 5})
    return path, source


def rewrite(path: Path, text: str) -> None:
    """Another content with a sidecar that fits it in SHA-256, so that only the records can tell."""
    path.write_text(text)
    facts = json.loads(sidecar_path(path).read_text())
    facts |= {"sha256": file_sha256(path), "hypotheses": len(text.splitlines())}
    sidecar_path(path).write_text(json.dumps(facts))


def test_checksum_is_the_crc32_of_the_bytes() -> None:
    assert source_checksum("") == "00000000"
    assert source_checksum("123456789") == "cbf43926"  # the check value of CRC-32
    assert source_checksum("ř") == f"{zlib.crc32(bytes([0xC5, 0x99])):08x}"


def test_the_file_byte_by_byte(tmp_path: Path) -> None:
    path, _ = write(tmp_path, make_lists())
    first, empty, czech, last = (source_checksum(SOURCES[index]) for index in (0, 1, 2, 4))
    assert path.read_bytes().decode() == (
        f"0\t{first}\t-0.500000\t▁h 0\t0\n0\t{first}\t-0.500000\t▁h 0\t1\n0\t{first}\t-1.250000\t▁h 0\t2\n"
        f"1\t{empty}\t0.000000\t▁h 1\t0\n"
        f"2\t{czech}\t-3.000000\t▁h 2\t0\n2\t{czech}\t-12.000001\t▁h 2\t1\n"
        f"3\t{first}\t-inf\t\n"
        f"4\t{last}\t-0.100000\t▁h 4\t0\n"
    )
    assert json.loads(sidecar_path(path).read_text()) == {
        "format": "fairseq-compress n-best 1",
        "sentences": 5,
        "hypotheses": 8,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source_sha256": hashlib.sha256((tmp_path / "source").read_bytes()).hexdigest(),
        "facts": {"beam": 5},
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, source = write(tmp_path, make_lists())
    assert list(read_nbest(path, source)) == list(read_nbest(path)) == make_lists()
    assert [nbest.translated for nbest in read_nbest(path)] == [True, True, True, False, True]


@given(one_line, st.floats(-100, 0))
def test_any_line_survives(text: str, score: float) -> None:
    line = format_list(NBestList(0, "00000000", [NBestEntry(score, text)]))
    index, checksum, printed, rest = line.removesuffix("\n").split("\t", 3)
    assert (index, checksum, rest) == ("0", "00000000", text)
    assert math.isclose(float(printed), score, abs_tol=5.1e-7)


@pytest.mark.parametrize("slip", [1, -1])
def test_a_slip_by_one_line_is_noticed_at_its_first_line(tmp_path: Path, slip: int) -> None:
    """The texts of all sources move up or down by one; file, counts and SHA-256 are consistent in themselves."""
    lists = make_lists()
    moved = lists[slip:] + lists[:slip]
    path, source = write(tmp_path, [nbest._replace(index=index) for index, nbest in enumerate(moved)])
    with pytest.raises(DataError, match=r"n, line 1: list 0 is of another source line than .*source, line 1"):
        list(read_nbest(path, source))


def test_a_slip_in_the_source_is_noticed(tmp_path: Path) -> None:
    path, source = write(tmp_path, make_lists())
    source.write_text("\n".join([*SOURCES[:2], "new", *SOURCES[2:]]) + "\n")
    with pytest.raises(DataError, match=r"n, line 5: list 2 is of another source line than .*source, line 3.*'new'"):
        list(read_nbest(path, source))


def test_sources_too_few_too_many_or_other_bytes(tmp_path: Path) -> None:
    path, source = write(tmp_path, make_lists())
    source.write_text("\n".join(SOURCES[:-1]) + "\n")
    with pytest.raises(DataError, match=r"n, line 8: list 4 has no source line"):
        list(read_nbest(path, source))
    source.write_text("\n".join([*SOURCES, "more"]) + "\n")
    with pytest.raises(DataError, match=r"has 5 lists, .* has more lines"):
        list(read_nbest(path, source))
    source.write_text("\r\n".join(SOURCES) + "\r\n")
    with pytest.raises(DataError, match="source_sha256 must be"):
        list(read_nbest(path, source))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n1\t", "\n2\t", "line 4: index 1 must be next, got 2"),
        ("0\t", "1\t", "line 1: index 0 must be next, got 1"),
        ("\n4\t", "\n3\t", "line 8: index 4 must be next, got 3"),
        ("-1.250000", "-0.250000", "line 1: hypotheses must come best first, got -0.250000 after -0.500000"),
        ("-1.250000", "-1.25", "line 3: a record is index, checksum, score and hypothesis"),
        ("-1.250000", "nan", "line 3: a record is"),
        ("-1.250000", "-inf", r"line 1: a score must be a finite number \(-inf alone, without a text\), got -inf"),
        ("-inf\t", "-inf\ttext", "line 7: a score must be a finite number"),
        ("\n1\t", "\n01\t", "line 4: a record is"),
        ("\n1\t", "\n\n1\t", "line 4: a record is index, checksum, score and hypothesis with tabs between, got ''"),
    ],
)
def test_damaged_records(tmp_path: Path, old: str, new: str, message: str) -> None:
    path, _ = write(tmp_path, make_lists())
    rewrite(path, path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        list(read_nbest(path))


def test_a_changed_or_truncated_file(tmp_path: Path) -> None:
    path, _ = write(tmp_path, make_lists())
    whole = path.read_text()
    path.write_text(whole.replace("▁h 0", "▁g 0", 1))
    with pytest.raises(DataError, match=r"n: sha256 must be \w{64} as in .*n\.json"):
        list(read_nbest(path))
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="sentences must be 5"):
        list(read_nbest(path))
    path.write_text(whole[:-1])
    with pytest.raises(DataError, match="sha256 must be"):
        list(read_nbest(path))
    path.write_bytes(whole.encode()[:-2] + b"\xff\n")
    with pytest.raises(DataError, match="line 8: not valid UTF-8"):
        list(read_nbest(path))


def test_sidecars(tmp_path: Path) -> None:
    path, _ = write(tmp_path, make_lists())
    sidecar = sidecar_path(path)
    facts = json.loads(sidecar.read_text())
    for content, message in [
        ("{", "not valid JSON"),
        ("[]", r"the format must be .*, got \[\]"),
        (json.dumps(facts | {"format": "fairseq-compress n-best 9"}), "got 'fairseq-compress n-best 9'"),
        (
            json.dumps({key: facts[key] for key in ("format", "facts", "sha256")}),
            "hypotheses: is missing; source_sha256: is missing",
        ),
    ]:
        sidecar.write_text(content)
        with pytest.raises(DataError, match=message):
            list(read_nbest(path))
    sidecar.unlink()
    with pytest.raises(DataError, match=r"cannot read .*n\.json: No such file"):
        list(read_nbest(path))


@pytest.mark.parametrize(
    ("hypotheses", "message"),
    [
        ([], "at least one hypothesis"),
        ([NBestEntry(-1.0, "a\nb")], "must be one line"),
        ([NBestEntry(-1.0, "a\r")], "must be one line"),
        ([NBestEntry(math.nan, "a")], "finite number"),
        ([NBestEntry(-2.0, "a"), NBestEntry(-1.0, "b")], "best first"),
    ],
)
def test_lists_that_cannot_be_written(hypotheses: list[NBestEntry], message: str) -> None:
    with pytest.raises(DataError, match=message):
        format_list(NBestList(7, "00000000", hypotheses))


def test_lists_out_of_order_cannot_be_written(tmp_path: Path) -> None:
    with open(tmp_path / "n", "wb") as stream, pytest.raises(DataError, match="0 is next, got 1"):
        NBestWriter(stream).write(untranslated(1, "00000000"))
