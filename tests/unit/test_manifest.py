"""Manifests: what is written is read, every field that breaks its rule is named, and older files are read."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_compress.errors import DataError
from fairseq_compress.work import migrate
from fairseq_compress.work.files import file_sha256
from fairseq_compress.work.manifest import Manifest, Sidecar, check_checksums, count, difference, sidecar_path


@dataclass(frozen=True)
class Part:
    name: str
    lines: int = count()


@dataclass(frozen=True, kw_only=True)
class Example(Manifest, name="example", version=2, written_by="make-example"):
    lines: int = count()
    weight: float
    parts: dict[str, Part]
    names: list[str]
    label: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def problems(self) -> Iterator[str]:
        if self.lines != len(self.names):
            yield f"lines: must be {len(self.names)}, the number of names, got {self.lines}"


WHOLE = Example(lines=2, weight=0.5, parts={"a": Part("ř", 3)}, names=["x", "y"])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    WHOLE.write(tmp_path / "m")
    assert Example.read(tmp_path / "m") == WHOLE
    assert json.loads((tmp_path / "m").read_text())["format"] == "fairseq-compress example 2"
    assert (tmp_path / "m").read_text() == WHOLE.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lines": -1}, r"m: damaged: lines: must be in \[0, inf\), got -1"),
        ({"lines": True}, "lines: must be a whole number, got True"),
        ({"lines": "2", "weight": None}, "lines: must be a whole number, got '2'; weight: must be a number, got None"),
        ({"weight": 1}, None),
        ({"names": ["x", 3]}, r"names\[1\]: must be a text, got 3"),
        ({"names": "xy"}, "names: must be a list, got 'xy'"),
        ({"parts": []}, r"parts: must be a table of keys, got \[\]"),
        (
            {"parts": {"a": {"lines": 1.5}}},
            r"damaged: parts\.a\.name: is missing; parts\.a\.lines: must be a whole",
        ),
        ({"label": 3}, "label: must be a text, got 3"),
        ({"label": "l", "unknown": 1}, None),
        ({"names": ["x"]}, "damaged: lines: must be 1, the number of names, got 2"),
        (
            {"format": "fairseq-compress example 9"},
            "m: the format must be 'fairseq-compress example 2', got '.*9'",
        ),
        ({"format": None}, "damaged: the format must be"),
    ],
)
def test_fields_that_break_their_rule(tmp_path: Path, change: dict[str, Any], message: str | None) -> None:
    (tmp_path / "m").write_text(json.dumps(json.loads(WHOLE.to_json()) | change))
    if message is None:
        Example.read(tmp_path / "m")
        return
    with pytest.raises(DataError, match=message) as caught:
        Example.read(tmp_path / "m")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"3", b"{}"])
def test_what_is_no_manifest(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(DataError, match=r"m: damaged: (not valid JSON|the format must be)"):
        Example.read(tmp_path / "m")
    with pytest.raises(DataError, match=r"cannot read .*none: No such file or directory; make-example writes it"):
        Example.read(tmp_path / "none")


def test_earlier_versions_are_read_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(content: dict[str, Any]) -> dict[str, Any]:
        return content | {"format": "fairseq-compress example 2", "weight": content["weight"] / 2}

    steps = {
        "fairseq-compress example 0": lambda content: content | {"format": "fairseq-compress example 1"},
        "fairseq-compress example 1": second,
    }
    monkeypatch.setattr(migrate, "STEPS", steps)
    for version in (0, 1):
        old = json.loads(WHOLE.to_json()) | {"format": f"fairseq-compress example {version}", "weight": 1.0}
        (tmp_path / "m").write_text(json.dumps(old))
        assert Example.read(tmp_path / "m") == WHOLE


def test_a_sidecar_matches_its_file_and_facts_only(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    facts = {"beam": 5, "ids": (1, 2)}
    Sidecar(sha256=file_sha256(path), facts=facts).write(sidecar_path(path))
    assert Sidecar.matches(path, facts)
    assert not Sidecar.matches(path, facts | {"beam": 4})
    path.write_text("other")
    assert not Sidecar.matches(path, facts)
    with pytest.raises(DataError, match=r"file: sha256 must be \w{64} as in .*file\.json, got \w{64}"):
        Sidecar.of(path).check(path, {"sha256": file_sha256(path)})
    assert not Sidecar.matches(tmp_path / "none", facts)


def test_checksums(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"x.{name}").write_text(name)
    checksums = {name: file_sha256(tmp_path / f"x.{name}") for name in ("a", "b")}
    check_checksums(checksums, f"{tmp_path}/x.", "x.json")
    (tmp_path / "x.b").write_text("c")
    with pytest.raises(DataError, match=r"x\.b: altered: SHA-256 must be \w+ as in x\.json, got"):
        check_checksums(checksums, f"{tmp_path}/x.", "x.json")


nested = st.recursive(st.integers() | st.none(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner))


@given(nested, nested)
def test_the_first_difference(one: Any, other: Any) -> None:
    assert difference(one, one) is None
    found = difference({"k": one}, {"k": other})
    if found is None:
        assert json.dumps(drop_none(one)) == json.dumps(drop_none(other)) or one == other
    else:
        name, here, there = found
        assert here != there
        assert name.split()[0] == "k"


def drop_none(value: Any) -> Any:
    """Mappings without entries that are None, sorted: an entry that is missing counts as None."""
    if not isinstance(value, dict):
        return value
    return {key: drop_none(value[key]) for key in sorted(value) if value[key] is not None}
