"""fairseq's ``dict.LANG.txt``: a symbol and its count on each line, in the order of the model's indices."""

import os
from collections.abc import Container, Iterator
from typing import NamedTuple

from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike, read_lines

OVERWRITE = "#fairseq:overwrite"


class Entry(NamedTuple):
    """One line."""

    number: int  # from 1
    symbol: str
    occurrences: int
    overwrite: bool  # it may be there twice; the first one's place counts


def read_entries(path: PathLike, taken: Container[str] = ()) -> Iterator[Entry]:
    """Yield the entries of a file, whose symbols must differ from each other and from those in ``taken``."""
    lines: dict[str, int] = {}
    number = 0
    for number, line in enumerate(read_lines(path), start=1):
        text, _, field = line.rstrip().rpartition(" ")
        if overwrite := field == OVERWRITE:
            text, _, field = text.rpartition(" ")
        place = f"{os.fspath(path)}, line {number}"
        try:
            count = int(field) if " " in line else None
        except ValueError:
            count = None
        if count is None:
            raise DataError(f"{place}: must be a symbol, a space and its count, got {line[:60]!r}")
        if not overwrite and (text in lines or text in taken):
            where = f"in line {lines[text]}" if text in lines else "one of fairseq's own symbols"
            raise DataError(f"{place}: must be a new symbol, {text[:60]!r} is {where} already")
        lines.setdefault(text, number)
        yield Entry(number, text, count, overwrite)
    if number == 0:
        raise DataError(f"{os.fspath(path)} is empty: at least one entry is needed")
