"""The dictionaries of a model directory: lists of entries in the order of their ids."""

import json
from pathlib import Path

from fairseq_compress.errors import DataError


def write_symbols(folder: Path, source: list[str], target: list[str]) -> None:
    """Write ``shared_vocabulary.json`` if they are equal, else ``source_`` and ``target_``, named as in CTranslate2."""
    sides = {"shared": source} if source == target else {"source": source, "target": target}
    for name, symbols in sides.items():
        (folder / f"{name}_vocabulary.json").write_text(json.dumps(symbols, ensure_ascii=False), encoding="utf-8")


def read_symbols(folder: Path, side: str) -> list[str]:
    """The entries of a side, ``source`` or ``target``, of a directory of either runtime."""
    shared, own = (folder / f"{name}_vocabulary.json" for name in ("shared", side))
    path = shared if shared.is_file() else own
    try:
        symbols = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged: {error}") from None
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise DataError(f"{path}: is damaged: it must be a list of strings")
    return symbols
