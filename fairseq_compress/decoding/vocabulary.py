"""The dictionaries of a model directory: lists of entries in the order of their ids.

Where the directory has a SentencePiece model, a file ``SIDE_entries.json`` may name pieces of it by their numbers: a
number is one piece, a pair ``[first, last]`` all from the first to the last. Most dictionaries are the pieces of such a
model in its order. Else ``SIDE_vocabulary.json`` has all entries as strings.
"""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from fairseq_compress.errors import DataError

ENTRIES, SYMBOLS = "_entries.json", "_vocabulary.json"
MODEL = "sentencepiece.model"


def write_symbols(folder: Path, source: list[str], target: list[str]) -> None:
    """Write one file ``shared_...`` if they are equal, else ``source_...`` and ``target_...``; the smaller kind.

    Args:
        folder: with the SentencePiece models, if there are any.
    """
    sides = {"shared": source} if source == target else {"source": source, "target": target}
    for side, symbols in sides.items():
        (folder / f"{side}{SYMBOLS}").write_text(json.dumps(symbols, ensure_ascii=False), encoding="utf-8")
        if (model := _model_of(folder, side)) is not None:
            ids = {piece: number for number, piece in enumerate(_pieces(model))}
            found = list(_ranges([ids.get(symbol, symbol) for symbol in symbols]))
            short = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
            if len(short.encode()) < (folder / f"{side}{SYMBOLS}").stat().st_size:
                (folder / f"{side}{SYMBOLS}").unlink()
                (folder / f"{side}{ENTRIES}").write_text(short, encoding="utf-8")


def read_symbols(folder: Path, side: str) -> list[str]:
    """The entries of a side, ``source`` or ``target``, of a directory of any runtime."""
    names = [f"{name}{kind}" for name in ("shared", side) for kind in (ENTRIES, SYMBOLS)]
    path = next((folder / name for name in names if (folder / name).is_file()), folder / names[-1])
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged: {error}") from None
    if path.name.endswith(ENTRIES) and isinstance(found, list):
        return _resolved(path, found, _model_of(folder, side))
    if not isinstance(found, list) or not all(isinstance(symbol, str) for symbol in found):
        raise DataError(f"{path}: is damaged: it must be a list of strings")
    return found


def _model_of(folder: Path, side: str) -> Path | None:
    """The SentencePiece model of a side, if there is one; of both sides only if they have the same one."""
    return next((path for path in (folder / MODEL, folder / f"{side}_{MODEL}") if path.is_file()), None)


def _pieces(model: Path) -> list[str]:
    state = model.stat()
    return _pieces_of(model, (state.st_mtime_ns, state.st_size, state.st_ino))


@lru_cache(maxsize=2)  # each side is read, and the source once more
def _pieces_of(model: Path, _: tuple[int, ...]) -> list[str]:
    # imported late: the runtimes open their sessions first
    from fairseq_compress.corpus.segmentation.sentencepiece_model import open_model

    processor = open_model(model)
    pieces: list[str] = processor.id_to_piece(list(range(len(processor))))
    return pieces


def _ranges(entries: Sequence[int | str]) -> Iterator[Any]:
    """Numbers that follow each other as pairs of the first and the last."""
    start = 0
    while start < len(entries):
        end, first = start + 1, entries[start]
        if isinstance(first, int):
            while end < len(entries) and entries[end] == first + end - start:
                end += 1
        yield first if end == start + 1 else [first, entries[end - 1]]
        start = end


def _resolved(path: Path, entries: list[Any], model: Path | None) -> list[str]:
    """Entries of a file with numbers as strings."""
    if model is None:
        raise DataError(f"{path}: requires the SentencePiece model of the directory, it is not there")
    pieces, found = _pieces(model), list[str]()
    for entry in entries:
        if isinstance(entry, str):
            found.append(entry)
            continue
        pair = entry if isinstance(entry, list) else [entry, entry]
        numbers = len(pair) == 2 and all(type(number) is int for number in pair)
        if not numbers or not 0 <= pair[0] <= pair[1] < len(pieces):
            rule = f"strings, and numbers and pairs of numbers in [0, {len(pieces)})"
            raise DataError(f"{path}: is damaged: it must be a list of {rule}, got {entry}")
        found += pieces[pair[0] : pair[1] + 1]
    return found
