"""Vocabularies of MarianMT, M2M100 and NLLB in the files of transformers, and their order in a fairseq dictionary."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_compress.checkpoint.imports.safetensors_files import read_json
from fairseq_compress.corpus.segmentation.sentencepiece_model import open_model
from fairseq_compress.errors import DataError
from fairseq_compress.work.files import PathLike

FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")
"""The first entries of every dictionary of fairseq."""


class Vocabulary(NamedTuple):
    """The entries of a table, in the order of its rows."""

    symbols: list[str]
    origin: Path
    """The file that has them."""

    def place(self, symbol: str) -> int | None:
        return self.symbols.index(symbol) if symbol in self.symbols else None

    def order(self) -> list[int | None]:
        """For each row of a fairseq dictionary the row here; None: ``<s>``, which Marian does not have."""
        first = [self.place(symbol) for symbol in FAIRSEQ]
        for symbol, place in list(zip(FAIRSEQ, first, strict=True))[1:]:
            if place is None:
                raise DataError(f"{self.origin}: must have {symbol}")
        taken = set(first)
        return first + [row for row in range(len(self.symbols)) if row not in taken]

    def ordered(self) -> list[str]:
        """The entries behind fairseq's own, in its order."""
        return [self.symbols[row] for row in self.order()[len(FAIRSEQ) :] if row is not None]

    def number(self, symbol: str) -> int | None:
        """The row of a symbol in the fairseq dictionary."""
        place = self.place(symbol)
        return None if place is None else self.order().index(place)


def reordered(table: Tensor, order: Sequence[int | None], missing: float = 0.0) -> Tensor:
    """The rows of a table, or the values of a bias, in another order; ``missing`` where there is none."""
    rows = table[torch.tensor([row or 0 for row in order])]
    for place, row in enumerate(order):
        if row is None:
            rows[place] = missing
    return rows


def marian_vocabulary(path: Path, rows: int) -> Vocabulary:
    """``vocab.json`` or ``target_vocab.json``."""
    return Vocabulary(_filled(_ids(read_json(path), path), rows, path), path)


def multilingual_vocabulary(folder: Path, sentencepiece: PathLike, rows: int) -> Vocabulary:
    """The pieces of ``vocab.json``, ``tokenizer.json`` or the SentencePiece model, and the language tokens."""
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    origin, found = _pieces(folder, sentencepiece)
    added = _added(folder, settings)
    if not added:
        special = read_json(path) if (path := folder / "special_tokens_map.json").is_file() else {}
        names = [_content(each) for each in (special | settings).get("additional_special_tokens") or []]
        added = {len(found) + place: name for place, name in enumerate(name for name in names if name not in FAIRSEQ)}
    return Vocabulary(_filled(found | added, rows, origin), origin)


def _pieces(folder: Path, sentencepiece: PathLike) -> tuple[Path, dict[int, str]]:
    """The file with the entries but for the language tokens, and the entries by their rows."""
    if (path := folder / "vocab.json").is_file():  # M2M100
        return path, _ids(read_json(path), path)
    if (path := folder / "tokenizer.json").is_file():
        vocabulary = (read_json(path).get("model") or {}).get("vocab")
        if isinstance(vocabulary, list):  # of a unigram model: pieces with their scores
            vocabulary = {pair[0]: place for place, pair in enumerate(vocabulary)}
        return path, _ids(vocabulary, path)
    model = open_model(sentencepiece)  # NLLB: <unk>, <s>, </s> and the pieces become <s>, <pad>, </s>, <unk> and they
    pieces = [model.id_to_piece(number) for number in range(3, len(model))]
    return Path(sentencepiece), dict(enumerate((*FAIRSEQ, *pieces)))


def _added(folder: Path, settings: Mapping[str, Any]) -> dict[int, str]:
    """Tokens that the tokenizer adds, with their rows."""
    if isinstance(listed := settings.get("added_tokens_decoder"), dict):
        return {int(number): _content(each) for number, each in listed.items()}
    if (path := folder / "added_tokens.json").is_file():
        return _ids(read_json(path), path)
    if (path := folder / "tokenizer.json").is_file():
        listed = read_json(path).get("added_tokens") or []
        return {int(each["id"]): _content(each) for each in listed}
    return {}


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _ids(table: Any, path: Path) -> dict[int, str]:
    if not isinstance(table, dict) or not table or not all(type(number) is int for number in table.values()):
        raise DataError(f"{path}: is damaged: it must have a number for each entry")
    return {number: symbol for symbol, number in table.items()}


def _filled(found: Mapping[int, str], rows: int, path: Path) -> list[str]:
    """A symbol for each row; rows without one, or with one that a dictionary cannot hold, get fairseq's fillers."""
    if outside := [number for number in found if not 0 <= number < rows]:
        raise DataError(f"{path}: must have entries in [0, {rows - 1}], the rows of the table, got {max(outside)}")
    taken: set[str] = set()
    symbols = []
    for row in range(rows):
        symbol = found.get(row, "")
        if symbol in taken or symbol.split() != [symbol]:
            symbol = f"madeupword{row:04d}"
        taken.add(symbol)
        symbols.append(symbol)
    return symbols
