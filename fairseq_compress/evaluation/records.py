"""The records of ``fairseq-compress score``: reading them, whether they can be compared, their tests."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.evaluation.significance import LEVEL, METHOD, holm
from fairseq_compress.work.files import PathLike

Record = Mapping[str, Any]

METRICS = {"bleu": "BLEU", "bleu_lowercase": "BLEU, lowercase", "chrf2": "chrF2"}
TESTED = ("bleu", "chrf2")
TABLE_FORMAT = "fairseq-compress table 1"
"""Value of ``format`` in a ``report.json``."""

# What a record must hold to be compared: the path of keys to it and its type.
REQUIRED_FIELDS: tuple[tuple[tuple[str, ...], type | tuple[type, ...]], ...] = (
    (("name",), str),
    (("direction",), str),
    *(((metric, "score"), (int, float)) for metric in METRICS),
    *(((metric, "signature"), str) for metric in METRICS),
    (("lines", "reference"), int),
    (("files", "reference", "sha256"), str),
)


class Test(NamedTuple):
    """A difference to a baseline and its significance among all tests of a table."""

    baseline: str
    difference: float
    p_value: float
    p_holm: float  # adjusted by Holm's correction for all tests of this metric in the table

    @property
    def significant(self) -> bool:
        return self.p_holm <= LEVEL


class Systems(NamedTuple):
    """The records of a report, and the title and note of the ``report.json`` that they come from, if any."""

    records: list[dict[str, Any]]
    title: str | None
    note: str | None


def read_systems(paths: Sequence[PathLike]) -> Systems:
    """Read the JSON records that ``fairseq-compress score`` wrote, and those in a ``report.json``."""
    if not paths:
        raise ConfigError("--scores: must name at least one file, got none")
    records: dict[str, dict[str, Any]] = {}
    origins: dict[str, PathLike] = {}
    titles, notes = [], []
    for path in paths:
        content = _read_json(path)
        is_table = isinstance(content, dict) and content.get("format") == TABLE_FORMAT
        for record in _systems_of(path, content) if is_table else [content]:
            _check_record(path, record)
            name = record["name"]
            if name in records:
                raise DataError(f"{origins[name]} and {path} both describe a system named {name!r}; score with --name")
            records[name], origins[name] = record, path
        if is_table:
            titles.append(content.get("title"))
            notes.append(content.get("note"))
    notes = list(dict.fromkeys(filter(None, notes)))
    return Systems(list(records.values()), next(filter(None, titles), None), " ".join(notes) or None)


def check_comparable(records: Sequence[Record]) -> None:
    """Refuse records whose direction, reference or signatures differ."""
    first = records[0]
    for other in records[1:]:
        for (what, one), two in zip(_basis(first).items(), _basis(other).values(), strict=True):
            if one != two:
                names = f"{first['name']!r} and {other['name']!r}"
                raise DataError(f"systems {names} cannot be compared: {what} is {one} and {two}")


def adjusted_tests(records: Sequence[Record]) -> list[dict[str, Test]]:
    """The tests of each record by metric; p values are adjusted for each metric over all records."""
    found: list[dict[str, Test]] = [{} for _ in records]
    for metric in TESTED:
        tests = [(test or {}).get(metric) for test in (record.get("paired_bootstrap") for record in records)]
        adjusted = iter(holm([test["p_value"] for test in tests if test]))
        for own, record, test in zip(found, records, tests, strict=True):
            if test:
                baseline = record["paired_bootstrap"]["baseline"]["name"]
                difference = record[metric]["score"] - test["baseline_score"]
                own[metric] = Test(baseline, difference, test["p_value"], next(adjusted))
    return found


def weight_bytes(record: Record) -> int | None:
    """Bytes of the stored weights, without optimizer, names and configuration."""
    return (record.get("checkpoint") or {}).get("bytes")


def speed_of(record: Record) -> tuple[float, float, float] | None:
    """Sentences a second: median, minimum and maximum of the timings."""
    speed = record.get("speed")
    return None if not speed else (speed["sentences_per_second"], *speed["sentences_per_second_range"])


def fact(record: Record, key: str) -> str | None:
    """A fact that was given with ``score --set``."""
    value = (record.get("facts") or {}).get(key)
    return None if value is None else str(value)


def facts_of(record: Record) -> dict[str, str]:
    """Metadata of the checkpoint, then the facts that were given; the checkpoint takes precedence."""
    stored = record.get("checkpoint") or {}
    layers = [stored[key] for key in ("encoder_layers", "decoder_layers") if key in stored]
    found = {"architecture": stored.get("architecture"), "layers": "+".join(map(str, layers))}
    found |= {key: stored.get(key) for key in ("width", "updates", "runtime", "quantization")}
    own = {key: str(value) for key, value in found.items() if value}
    return own | {key: value for key, value in (record.get("facts") or {}).items() if key not in own}


def _basis(record: Record) -> dict[str, str]:
    """What must be equal between systems for their scores to be comparable."""
    signatures = {f"the signature of {label}": record[metric]["signature"] for metric, label in METRICS.items()}
    reference = record["files"]["reference"]["sha256"]
    return {"the direction": record["direction"], "the SHA-256 of the reference": reference, **signatures}


def _read_json(path: PathLike) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"scores {path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"scores {path}: is not JSON ({error})") from None


def _systems_of(path: PathLike, table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records in a ``report.json``."""
    systems = table.get("systems")
    if not isinstance(systems, list) or not systems or not all(isinstance(each, dict) for each in systems):
        raise DataError(f"scores {path}: lacks systems; 'fairseq-compress report' writes such files")
    records = []
    for system in systems:
        record = {"direction": table.get("direction")} | system
        tests = record.pop("tests", None) or {}
        if tests and not record.get("paired_bootstrap"):  # of version 0.2 before the records were kept whole
            method = (table.get("significance") or {}).get("method")
            record["paired_bootstrap"] = {"baseline": {"name": next(iter(tests.values()))["baseline"]}} | {
                metric: {
                    "baseline_score": record[metric]["score"] - test["difference"],
                    "p_value": test["p_value"],
                    "method": method,
                }
                for metric, test in tests.items()
            }
        records.append(record)
    return records


def _check_record(path: PathLike, record: Any) -> None:
    """Refuse a record that lacks what a comparison needs."""
    for keys, kind in REQUIRED_FIELDS:
        value = record
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            raise DataError(f"scores {path}: lacks {'.'.join(keys)}; 'fairseq-compress score' writes such files")
    _refuse_earlier(path, record)


def _refuse_earlier(path: PathLike, record: Record) -> None:
    """Earlier versions counted the optimizer's state as size, timed once, and had half the p."""
    test = record.get("paired_bootstrap")
    problems = (
        ("its p values are of another test", test and any(test.get(m, {}).get("method") != METHOD for m in TESTED)),
        ("it does not tell the bytes of the weights", record.get("checkpoint") and weight_bytes(record) is None),
        ("its speed is of one timing", record.get("speed") and "sentences_per_second_range" not in record["speed"]),
    )
    for problem, holds in problems:
        if holds:
            raise DataError(f"scores {path}: {problem}; run 'fairseq-compress score' of this version again")
