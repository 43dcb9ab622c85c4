"""Tables in Markdown."""

from collections.abc import Sequence

NOT_MEASURED = "–"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table whose first ``texts`` columns hold text, and the others numbers, aligned right."""
    rule = ["---"] * texts + ["---:"] * (len(header) - texts)
    lines = [[cell(value) for value in row] for row in (header, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def cell(text: object) -> str:
    """Text with bars and line breaks escaped."""
    return " ".join(str(text).split()).replace("|", "\\|")


def speed_cell(speed: tuple[float, float, float] | None) -> str:
    """Median, and in brackets least and greatest."""
    return NOT_MEASURED if speed is None else f"{speed[0]:.1f} ({speed[1]:.1f} to {speed[2]:.1f})"
