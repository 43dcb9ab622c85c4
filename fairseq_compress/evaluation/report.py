"""The records of several systems, compared: a page in Markdown with a table, a picture, and the table as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairseq_compress.evaluation.markdown import NOT_MEASURED, caution_lines, cell, markdown_table, speed_cell
from fairseq_compress.evaluation.picture import Point, draw_comparison
from fairseq_compress.evaluation.records import (
    METRICS,
    PathLike,
    Record,
    adjusted_tests,
    check_comparable,
    facts_of,
    load_records,
    speed_of,
    table_json,
    weight_bytes,
)
from fairseq_compress.evaluation.significance import LEVEL, METHOD
from fairseq_compress.work.files import atomic_write

PAGE_NAME, PICTURE_NAME, TABLE_NAME = "report.md", "report.png", "report.json"
BYTES_PER_MB = 1_000_000


class Report(NamedTuple):
    """The files of a report."""

    page: Path
    picture: Path
    table: Path


def write_report(inputs: Sequence[PathLike], output_dir: PathLike, title: str, note: str | None = None) -> Report:
    """Write ``report.md``, ``report.png`` and ``report.json`` into ``output_dir``, each atomically.

    Raises:
        ConfigError: no inputs.
        DataError: as ``load_records`` and ``check_comparable``.
    """
    records = load_records(inputs)
    check_comparable(records)
    report = Report(*(Path(output_dir) / name for name in (PAGE_NAME, PICTURE_NAME, TABLE_NAME)))
    with atomic_write(report.picture, "wb") as file:
        draw_comparison([_point(record) for record in records], title, note, file)
    with atomic_write(report.table) as file:
        file.write(table_json(records, title, note, *score_table(records)))
    with atomic_write(report.page) as file:
        file.write(render_page(records, title, note))
    return report


def render_page(records: Sequence[Record], title: str, note: str | None = None) -> str:
    """The page in Markdown. Ratios are against the first system whose facts say ``role=teacher``."""
    teacher = _teacher(records)
    blocks = [f"# {title}"]
    if note:
        blocks.append(f"> **Note:** {note}")
    blocks.append(f"Translation {records[0]['direction']}, {records[0]['lines']['reference']:,} test sentences.")
    blocks.append(markdown_table(*score_table(records)))
    blocks.append(_explanation(teacher))
    blocks += _facts(records)
    blocks.append(f"![BLEU against size and speed]({PICTURE_NAME})")
    blocks.append("Signatures (sacreBLEU), the same for all systems:")
    blocks.append("\n".join(f"- {label}: `{records[0][metric]['signature']}`" for metric, label in METRICS.items()))
    return "\n\n".join([*blocks, *_bootstrap_tests(records), *caution_lines(records)]) + "\n"


def score_table(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, a row for each system."""
    teacher = _teacher(records)
    header = ["System", *METRICS.values(), "Parameters", "MB of weights", "Sentences/s"]
    if teacher is not None:
        header += ["Times smaller", "Times faster"]
    rows = []
    for record in records:
        size, speed = weight_bytes(record), speed_of(record)
        parameters = (record.get("checkpoint") or {}).get("parameters")
        row = [record["name"], *(f"{record[metric]['score']:.1f}" for metric in METRICS)]
        row += [_number(parameters, ","), _number(size and size / BYTES_PER_MB, ".1f"), speed_cell(speed)]
        if teacher is not None:
            base = speed_of(teacher)
            row += [_ratio(weight_bytes(teacher), size), _ratio(speed and speed[0], base and base[0])]
        rows.append(row)
    return header, rows


def _explanation(teacher: Record | None) -> str:
    lines = [
        "Parameters: tied ones counted once. MB of weights: 1,000,000 bytes of the weights as they are stored, without "
        "the optimizer's state. Sentences/s: the median of the timings, in brackets the least and the greatest."
    ]
    if teacher is not None:
        lines.append(f"Times smaller (bytes of the weights) and faster (sentences/s): against {cell(teacher['name'])}.")
    return " ".join(lines)


def _facts(records: Sequence[Record]) -> list[str]:
    """Facts that all systems share, once; the others as a table."""
    facts = [facts_of(record) for record in records]
    keys = list(dict.fromkeys(key for fact in facts for key in fact))
    shared = [key for key in keys if all(key in fact and fact[key] == facts[0].get(key) for fact in facts)]
    varying = [key for key in keys if key not in shared]
    blocks = []
    if shared:
        listed = "; ".join(f"{cell(key)} = {cell(facts[0][key])}" for key in shared)
        blocks.append(f"The same for all systems: {listed}.")
    if varying:
        rows = [
            [record["name"], *(str(fact.get(key, NOT_MEASURED)) for key in varying)]
            for record, fact in zip(records, facts, strict=True)
        ]
        blocks.append(markdown_table(["System", *varying], rows, texts=1 + len(varying)))
    return blocks


def _bootstrap_tests(records: Sequence[Record]) -> list[str]:
    found = [(record, tests["bleu"]) for record, tests in zip(records, adjusted_tests(records), strict=True) if tests]
    if not found:
        return []
    lines = [
        f"- {cell(record['name'])} against {cell(test.baseline)}: {test.difference:+.1f} BLEU, p = {test.p_value:.4f}, "
        f"corrected {test.p_holm:.4f}{', significant' if test.significant else ''}"
        for record, test in found
    ]
    signature = found[0][0]["paired_bootstrap"]["bleu"]["signature"]
    head = (
        f"Tests of BLEU ({METHOD}; `{signature}`), p as it is and with Holm's correction for the {len(found)} of this "
        f"page; significant: the corrected p is at most {LEVEL}:"
    )
    return [head, "\n".join(lines)]


def _number(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else format(value, form)


def _ratio(numerator: float | None, denominator: float | None) -> str:
    if numerator is None or denominator is None:
        return NOT_MEASURED
    return f"{numerator / denominator:.1f}×"


def _teacher(records: Sequence[Record]) -> Record | None:
    return next((record for record in records if _is_teacher(record)), None)


def _is_teacher(record: Record) -> bool:
    return (record.get("facts") or {}).get("role") == "teacher"


def _point(record: Record) -> Point:
    size, speed = weight_bytes(record), speed_of(record)
    megabytes = None if size is None else size / BYTES_PER_MB
    return Point(record["name"], record["bleu"]["score"], megabytes, speed and speed[0], _is_teacher(record))
