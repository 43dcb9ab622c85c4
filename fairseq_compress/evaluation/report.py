"""Several systems compared: a page in Markdown, a picture, and the tables as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairseq_compress.evaluation.comparison import (
    NOT_MEASURED,
    cell,
    comparison_blocks,
    comparison_table,
    has_comparison,
    markdown_table,
    speed_cell,
)
from fairseq_compress.evaluation.records import (
    METRICS,
    TABLE_FORMAT,
    Record,
    adjusted_tests,
    check_comparable,
    fact,
    facts_of,
    read_systems,
    speed_of,
    weight_bytes,
)
from fairseq_compress.evaluation.significance import LEVEL, METHOD
from fairseq_compress.work.files import PathLike, atomic_write, check_distinct

SUFFIXES = (".md", ".png", ".json")  # in a folder
PICTURES = (".png", ".svg")
TITLE = "Systems compared"
BYTES_PER_MB = 1_000_000
KEPT = (
    "name",
    "lines",
    "files",
    "checkpoint",
    "speed",
    "facts",
    "cautions",
    "paired_bootstrap",
    *METRICS,
)  # in the JSON


def write_report(
    inputs: Sequence[PathLike], outputs: Sequence[PathLike], title: str | None = None, note: str | None = None
) -> list[Path]:
    """Write a report on records of ``fairseq-compress score`` and return its files.

    Args:
        inputs: records, or a ``report.json`` with all of them.
        outputs: files named ``.md``, ``.png``, ``.svg`` or ``.json``, or folders for ``report.md``, ``.png``
            and ``.json``.
        title: None: that of the ``report.json``.
        note: None: that of the ``report.json``.
    """
    paths = [path for output in outputs for path in _files(Path(output))]
    pictures = [path for path in paths if path.suffix in PICTURES]
    if pictures:
        from fairseq_compress.evaluation.picture import draw_comparison, point_of
    systems = read_systems(inputs)
    records, title, note = systems.records, title or systems.title or TITLE, note or systems.note
    check_comparable(records)
    check_distinct(inputs, paths)
    page = render_page(records, title, note, pictures[0].name if pictures else None)
    texts = {".md": page, ".json": tables_json(records, title, note)}
    for path in paths:
        if path in pictures:
            with atomic_write(path, "wb") as file:
                draw_comparison([point_of(record) for record in records], title, note, file, path.suffix[1:])
        else:
            with atomic_write(path) as file:
                file.write(texts[path.suffix])
    return paths


def render_page(records: Sequence[Record], title: str, note: str | None = None, picture: str | None = None) -> str:
    """The page: the comparison over seeds and against baselines, if there is one; then every record.

    Ratios are against the first system with the fact ``role=teacher``. ``picture`` is the file to show.
    """
    blocks = [f"# {title}"]
    if note:
        blocks.append(f"> **Note:** {note}")
    blocks.append(f"Translation {records[0]['direction']}, {records[0]['lines']['reference']:,} test sentences.")
    if has_comparison(records):
        blocks += comparison_blocks(records)
    blocks += [markdown_table(*score_table(records)), _explanation(_teacher(records)), *_facts(records)]
    if picture:
        blocks.append(f"![BLEU against size and speed]({picture})")
    blocks.append("Signatures (sacreBLEU), the same for all systems:")
    blocks.append("\n".join(f"- {label}: `{records[0][metric]['signature']}`" for metric, label in METRICS.items()))
    cautions = [(record["name"], each) for record in records for each in record.get("cautions") or []]
    if cautions:
        blocks += ["**Cautions:**", "\n".join(f"- {cell(name)}: {cell(each)}" for name, each in cautions)]
    return "\n\n".join(blocks) + "\n"


def score_table(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, a row for each record."""
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


def tables_json(records: Sequence[Record], title: str, note: str | None) -> str:
    """The tables as JSON: their cells, and the numbers of each record; no paths."""
    systems = []
    for record, tests in zip(records, adjusted_tests(records), strict=True):
        tested = {metric: test._asdict() | {"significant": test.significant} for metric, test in tests.items()}
        system = {key: record.get(key) for key in KEPT} | {"tests": tested}
        if record.get("paired_bootstrap"):  # whole, so that a report can be made from this one
            system["paired_bootstrap"] = record["paired_bootstrap"]
        systems.append(system)
    content: dict[str, Any] = {
        "format": TABLE_FORMAT,
        "title": title,
        "note": note,
        "direction": records[0]["direction"],
        "table": _named(*score_table(records)),
        "systems": systems,
        "significance": {"method": METHOD, "correction": "Holm, over the tests of a metric", "level": LEVEL},
    }
    if has_comparison(records):
        content["comparison"] = _named(*comparison_table(records))
    return json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _files(output: Path) -> list[Path]:
    return [output] if output.suffix in (*SUFFIXES, *PICTURES) else [output / f"report{suffix}" for suffix in SUFFIXES]


def _named(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(header, row, strict=True)) for row in rows]


def _explanation(teacher: Record | None) -> str:
    text = (
        "Parameters: tied ones counted once. MB of weights: 1,000,000 bytes of the weights as they are stored, without "
        "the optimizer's state. Sentences/s: the median of the timings, in brackets the least and the greatest."
    )
    if teacher is None:
        return text
    return f"{text} Times smaller (bytes of the weights) and faster (sentences/s): against {cell(teacher['name'])}."


def _facts(records: Sequence[Record]) -> list[str]:
    """Facts that all systems share, once; the others as a table."""
    facts = [facts_of(record) for record in records]
    keys = list(dict.fromkeys(key for each in facts for key in each))
    shared = [key for key in keys if all(key in each and each[key] == facts[0].get(key) for each in facts)]
    varying = [key for key in keys if key not in shared]
    blocks = []
    if shared:
        listed = "; ".join(f"{cell(key)} = {cell(facts[0][key])}" for key in shared)
        blocks.append(f"The same for all systems: {listed}.")
    if varying:
        cells = [[str(each.get(key, NOT_MEASURED)) for key in varying] for each in facts]
        rows = [[record["name"], *row] for record, row in zip(records, cells, strict=True)]
        blocks.append(markdown_table(["System", *varying], rows, texts=1 + len(varying)))
    return blocks


def _number(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else format(value, form)


def _ratio(numerator: float | None, denominator: float | None) -> str:
    return NOT_MEASURED if numerator is None or denominator is None else f"{numerator / denominator:.1f}×"


def _teacher(records: Sequence[Record]) -> Record | None:
    return next((record for record in records if fact(record, "role") == "teacher"), None)
