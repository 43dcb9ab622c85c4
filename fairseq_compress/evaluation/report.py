"""The records of several systems, compared: a page in Markdown with a table, and a picture beside it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq_compress.corpus.files import atomic_write
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.evaluation.picture import Point, draw_comparison

PathLike = str | os.PathLike[str]
Record = Mapping[str, Any]

PAGE_NAME, PICTURE_NAME = "report.md", "report.png"
BYTES_PER_MB = 1_000_000
NOT_MEASURED = "–"
METRICS = {"bleu": "BLEU", "bleu_lowercase": "BLEU, lowercase", "chrf2": "chrF2"}

# What a record must hold to be compared: the path of keys to it and its type.
REQUIRED_FIELDS: tuple[tuple[tuple[str, ...], type | tuple[type, ...]], ...] = (
    (("name",), str),
    (("direction",), str),
    *(((metric, "score"), (int, float)) for metric in METRICS),
    *(((metric, "signature"), str) for metric in METRICS),
    (("lines", "reference"), int),
    (("files", "reference", "sha256"), str),
)


def write_report(
    inputs: Sequence[PathLike], output_dir: PathLike, title: str, note: str | None = None
) -> tuple[Path, Path]:
    """Write ``report.md`` and ``report.png`` into ``output_dir``, both atomically, and return their paths.

    Raises:
        ConfigError: no inputs.
        DataError: as :func:`load_records` and :func:`check_comparable`.
    """
    records = load_records(inputs)
    check_comparable(records)
    page, picture = Path(output_dir) / PAGE_NAME, Path(output_dir) / PICTURE_NAME
    with atomic_write(picture, "wb") as file:
        draw_comparison([_point(record) for record in records], title, note, file)
    with atomic_write(page) as file:
        file.write(render_page(records, title, note))
    return page, picture


def load_records(paths: Sequence[PathLike]) -> list[dict[str, Any]]:
    """Read the JSON records that ``fairseq-compress score`` wrote.

    Raises:
        ConfigError: no paths.
        DataError: a file is missing, is no JSON, or lacks a field; or two systems have one name.
    """
    if not paths:
        raise ConfigError("--inputs: at least one scores file is needed")
    records: dict[str, dict[str, Any]] = {}
    origins: dict[str, PathLike] = {}
    for path in paths:
        record = _load_record(path)
        name = record["name"]
        if name in records:
            raise DataError(f"{origins[name]} and {path} both describe a system named {name!r}; score with --name")
        records[name], origins[name] = record, path
    return list(records.values())


def check_comparable(records: Sequence[Record]) -> None:
    """Scores can stand in one table only if they were computed in one way on one test set.

    Raises:
        DataError: two systems differ in direction, in the reference's checksum or in a metric's signature.
    """
    first = records[0]
    for other in records[1:]:
        for (what, mine), its in zip(_basis(first).items(), _basis(other).values(), strict=True):
            if mine != its:
                raise DataError(
                    f"systems {first['name']!r} and {other['name']!r} cannot be compared: {what} is {mine} and {its}"
                )


def render_page(records: Sequence[Record], title: str, note: str | None = None) -> str:
    """The page in Markdown. Ratios are against the first system whose facts say ``role=teacher``."""
    teacher = next((record for record in records if _is_teacher(record)), None)
    blocks = [f"# {title}"]
    if note:
        blocks.append(f"> **Note:** {note}")
    blocks.append(f"Translation {records[0]['direction']}, {records[0]['lines']['reference']:,} test sentences.")
    blocks.append(_score_table(records, teacher))
    blocks.append(_explanation(teacher))
    blocks += _facts(records)
    blocks.append(f"![BLEU against size and speed]({PICTURE_NAME})")
    blocks.append("Signatures (sacreBLEU), the same for all systems:")
    blocks.append("\n".join(f"- {label}: `{records[0][metric]['signature']}`" for metric, label in METRICS.items()))
    return "\n\n".join(blocks + _bootstrap_tests(records)) + "\n"


def _basis(record: Record) -> dict[str, str]:
    """What must be equal between systems for their scores to be comparable."""
    signatures = {f"the signature of {label}": record[metric]["signature"] for metric, label in METRICS.items()}
    reference = record["files"]["reference"]["sha256"]
    return {"the direction": record["direction"], "the SHA-256 of the reference": reference, **signatures}


def _load_record(path: PathLike) -> dict[str, Any]:
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"scores {path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # also UnicodeDecodeError
        raise DataError(f"scores {path}: is not JSON ({error})") from None
    for keys, kind in REQUIRED_FIELDS:
        value = record
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            raise DataError(f"scores {path}: lacks {'.'.join(keys)}; 'fairseq-compress score' writes such files")
    return record


def _score_table(records: Sequence[Record], teacher: Record | None) -> str:
    header = ["System", *METRICS.values(), "Parameters", "MB on disk", "Sentences/s"]
    if teacher is not None:
        header += ["Times smaller", "Times faster"]
    rows = []
    for record in records:
        size, speed = _bytes(record), _speed(record)
        parameters = (record.get("checkpoint") or {}).get("parameters")
        row = [record["name"], *(f"{record[metric]['score']:.1f}" for metric in METRICS)]
        row += [_number(parameters, ","), _number(size and size / BYTES_PER_MB, ".1f"), _number(speed, ".1f")]
        if teacher is not None:
            row += [_ratio(_bytes(teacher), size), _ratio(speed, _speed(teacher))]
        rows.append(row)
    return markdown_table(header, rows)


def _explanation(teacher: Record | None) -> str:
    lines = ["Parameters: tied ones counted once. MB on disk: 1,000,000 bytes of the checkpoint file."]
    if teacher is not None:
        lines.append(f"Times smaller (bytes of the file) and faster (sentences/s): against {_cell(teacher['name'])}.")
    return " ".join(lines)


def _facts(records: Sequence[Record]) -> list[str]:
    """Facts that all systems share, once; the others as a table."""
    facts = [record.get("facts") or {} for record in records]
    keys = list(dict.fromkeys(key for fact in facts for key in fact))
    shared = [key for key in keys if all(key in fact and fact[key] == facts[0].get(key) for fact in facts)]
    varying = [key for key in keys if key not in shared]
    blocks = []
    if shared:
        listed = "; ".join(f"{_cell(key)} = {_cell(facts[0][key])}" for key in shared)
        blocks.append(f"The same for all systems: {listed}.")
    if varying:
        rows = [
            [record["name"], *(str(fact.get(key, NOT_MEASURED)) for key in varying)]
            for record, fact in zip(records, facts, strict=True)
        ]
        blocks.append(markdown_table(["System", *varying], rows, texts=1 + len(varying)))
    return blocks


def _bootstrap_tests(records: Sequence[Record]) -> list[str]:
    lines = []
    for record in records:
        if test := record.get("paired_bootstrap"):
            difference = record["bleu"]["score"] - test["bleu"]["baseline_score"]
            lines.append(
                f"- {_cell(record['name'])} against {test['baseline']['name']}: {difference:+.1f} BLEU,"
                f" p = {test['bleu']['p_value']:.3f} (`{test['bleu']['signature']}`)"
            )
    return ["Paired bootstrap tests:", "\n".join(lines)] if lines else []


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table of which the first ``texts`` columns hold text and the others numbers, which stand to the right."""
    rule = ["---"] * texts + ["---:"] * (len(header) - texts)
    lines = [[_cell(value) for value in row] for row in (header, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def _cell(text: object) -> str:
    """Text that neither a bar nor a line break can tear out of its cell."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _number(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else format(value, form)


def _ratio(numerator: float | None, denominator: float | None) -> str:
    if numerator is None or denominator is None:
        return NOT_MEASURED
    return f"{numerator / denominator:.1f}×"


def _bytes(record: Record) -> int | None:
    return (record.get("checkpoint") or {}).get("bytes_on_disk")


def _speed(record: Record) -> float | None:
    return (record.get("speed") or {}).get("sentences_per_second")


def _is_teacher(record: Record) -> bool:
    return (record.get("facts") or {}).get("role") == "teacher"


def _point(record: Record) -> Point:
    size = _bytes(record)
    megabytes = None if size is None else size / BYTES_PER_MB
    return Point(record["name"], record["bleu"]["score"], megabytes, _speed(record), _is_teacher(record))
