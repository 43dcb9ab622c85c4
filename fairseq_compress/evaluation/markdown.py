"""Markdown of tables."""

from collections.abc import Sequence

from fairseq_compress.evaluation.records import Record

NOT_MEASURED = "–"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table of which the first ``texts`` columns hold text and the others numbers, which stand to the right."""
    rule = ["---"] * texts + ["---:"] * (len(header) - texts)
    lines = [[cell(value) for value in row] for row in (header, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def cell(text: object) -> str:
    """Text that neither a bar nor a line break can tear out of its cell."""
    return " ".join(str(text).split()).replace("|", "\\|")


def speed_cell(speed: tuple[float, float, float] | None) -> str:
    """Median, and in brackets least and greatest."""
    return NOT_MEASURED if speed is None else f"{speed[0]:.1f} ({speed[1]:.1f} to {speed[2]:.1f})"


def caution_lines(records: Sequence[Record]) -> list[str]:
    """The cautions of all records in a list, with the names of the systems."""
    lines = [
        f"- {cell(record['name'])}: {cell(caution)}" for record in records for caution in record.get("cautions") or []
    ]
    return ["**Cautions:**", "\n".join(lines)] if lines else []
