"""Raw parallel text -> the folder of :mod:`fairseq_compress.corpus.dual_text`.

Memory grows with the number of different words (about 0.5 GB a million) and not with the text.
"""

import os
import re
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fairseq_compress.corpus.dictionary_file import read_entries
from fairseq_compress.corpus.dual_text import META, SPECIALS, UNK, VOCABULARIES, DualTextManifest
from fairseq_compress.corpus.segmentation.sentencepiece_model import BATCH_LINES
from fairseq_compress.corpus.vocabulary_match import Entries, mismatch
from fairseq_compress.corpus.word_segmentation import DualSegmenter, Word, WordSegmenter
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.languages import check_language
from fairseq_compress.work.files import PathLike, check_parallel, file_sha256, new_folder, progress, read_lines

NAME = re.compile(r"[A-Za-z0-9_-]+")  # of a part: a piece of a file name


class VocabularyFiles(NamedTuple):
    """A sentencepiece model, and fairseq's dictionary with all its pieces."""

    model: PathLike
    dictionary: PathLike


def encode_dual(
    parts: Mapping[str, str], languages: tuple[str, str], teacher: VocabularyFiles, student: VocabularyFiles,
    output: PathLike,
) -> DualTextManifest:  # fmt: skip
    """Write the folder, complete or not at all, and return its ``meta.json``.

    Args:
        parts: name of each part -> prefix of its files, which end in ``.LANG``; text, one sentence a line.
        languages: source and target.
        output: must not exist.
    """
    _check_names(parts, languages)
    segmenter = DualSegmenter(teacher.model, student.model)
    vocabularies = zip((segmenter.teacher, segmenter.student), (teacher.dictionary, student.dictionary), strict=True)
    dictionaries = [_dictionary_of(model, path) for model, path in vocabularies]
    paths = {part: [f"{prefix}.{language}" for language in languages] for part, prefix in parts.items()}
    counts = {part: check_parallel(*texts) for part, texts in paths.items()}
    with new_folder(output) as folder:
        entries, table = _write_dictionaries(folder, dictionaries)
        written: dict[str, dict[str, Any]] = {}
        for part, texts in paths.items():
            words = [
                _write_text(segmenter, text, counts[part], table, folder / f"{part}.{language}")
                for text, language in zip(texts, languages, strict=True)
            ]
            written[part] = {"sentences": counts[part], "words": dict(zip(languages, words, strict=True))}
        models = {"teacher": file_sha256(teacher.model), "student": file_sha256(student.model)}
        types = table.write(folder)
        sha256 = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
        meta = DualTextManifest(
            languages=list(languages), parts=written, models=models, entries=entries, sha256=sha256, **types
        )
        meta.write(folder / META)
    return meta


def read_dictionary(path: PathLike) -> dict[str, str]:
    """The lines of fairseq's ``dict.txt``, ``PIECE COUNT``, by their pieces."""
    entries: dict[str, str] = {}
    for number, piece, count, overwrite in read_entries(path, SPECIALS):
        if piece.split() != [piece] or overwrite:
            raise DataError(f"{os.fspath(path)}, line {number}: must be a piece without spaces, got {piece[:60]!r}")
        entries[piece] = f"{piece} {count}"
    return entries


class _TypeTable:
    """Numbers of word types, in order of appearance, and the union ids of their pieces."""

    def __init__(self, ids: Sequence[dict[str, int]]) -> None:
        self.numbers: dict[tuple[Word, Word], int] = {}
        self._ids = ids
        self._pieces = [array("i") for _ in ids]
        self._lengths = [array("i") for _ in ids]

    def add(self, pair: tuple[Word, Word]) -> int:
        """The number of a new type."""
        for word, ids, pieces, lengths in zip(pair, self._ids, self._pieces, self._lengths, strict=True):
            found = [ids.get(piece, UNK) for piece in word.split(" ")]
            pieces.extend(found)
            lengths.append(len(found))
        return self.numbers.setdefault(pair, len(self.numbers))

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the two files of the table, and return the counts."""
        pieces, lengths = (np.concatenate(arrays) for arrays in (self._pieces, self._lengths))
        pieces.astype("<i4").tofile(folder / "pieces.bin")
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype("<i8").tofile(folder / "pieces.offsets.bin")
        named = list(zip(VOCABULARIES, self._pieces, strict=True))
        return {
            "types": len(self.numbers),
            "pieces": {name: len(ids) for name, ids in named},
            "unknown_pieces": {name: ids.count(UNK) for name, ids in named},
        }


def _write_text(segmenter: DualSegmenter, path: str, total: int, table: _TypeTable, start: Path) -> int:
    """Write types and offsets of one text, and return the number of words."""
    numbers, words, sentences = table.numbers, 0, 0
    lines = segmenter.pairs(progress(read_lines(path), total, "encode-dual"), path)
    with open(f"{start}.types.bin", "wb") as types_file, open(f"{start}.offsets.bin", "wb") as offsets_file:
        types, offsets = [], [0]
        for pairs in lines:
            sentences += 1
            types += [number if (number := numbers.get(pair)) is not None else table.add(pair) for pair in pairs]
            offsets.append(words + len(types))
            if len(offsets) > BATCH_LINES:
                words += _flush(types, types_file, "<i4")
                _flush(offsets, offsets_file, "<i8")
        words += _flush(types, types_file, "<i4")
        _flush(offsets, offsets_file, "<i8")
    if sentences != total:
        raise DataError(f"{path} changed while it was read: {total} lines, then {sentences}")
    return words


def _flush(values: list[int], stream: Any, dtype: str) -> int:
    """Write the numbers, empty the list, and return their count."""
    count = len(values)
    stream.write(np.array(values, dtype=dtype).tobytes())
    values.clear()
    return count


def _write_dictionaries(folder: Path, dictionaries: Sequence[dict[str, str]]) -> tuple[dict[str, int], _TypeTable]:
    """Write the three dictionaries and the maps to the union; their numbers of entries, and an empty table of types."""
    teacher, student = dictionaries
    union = teacher | {piece: line for piece, line in student.items() if piece not in teacher}
    place = {piece: number for number, piece in enumerate((*SPECIALS, *union))}
    sizes = {}
    for name, entries in zip((*VOCABULARIES, "union"), (teacher, student, union), strict=True):
        (folder / f"dict.{name}.txt").write_text("".join(f"{line}\n" for line in entries.values()), encoding="utf-8")
        to_union = np.array([place[piece] for piece in (*SPECIALS, *entries)], dtype="<i4")
        sizes[name] = len(to_union)
        if name in VOCABULARIES:
            to_union.tofile(folder / f"{name}_to_union.bin")
    return sizes, _TypeTable([{piece: place[piece] for piece in entries} for entries in dictionaries])


def _check_names(parts: Mapping[str, str], languages: tuple[str, str]) -> None:
    if not parts:
        raise ConfigError("parts: at least one is needed (--trainpref, --validpref, --testpref), got none")
    if wrong := [name for name in parts if not NAME.fullmatch(name)]:
        raise ConfigError(f"parts: must be letters, digits, '-' and '_', got {wrong[0]!r}")
    for option, language in zip(("--source-lang", "--target-lang"), languages, strict=True):
        check_language(option, language)
    if languages[0] == languages[1]:
        raise ConfigError(f"--source-lang and --target-lang: must differ, got {languages[0]} twice")


def _dictionary_of(model: WordSegmenter, path: PathLike) -> dict[str, str]:
    entries = read_dictionary(path)
    if missing := [piece for piece in model.entries() if piece not in entries]:
        raise DataError(
            f"{os.fspath(path)}: must have all pieces of {model.path}, lacks {len(missing)}, such as {missing[0]!r}"
        )
    counts = [int(line.rpartition(" ")[2]) for line in entries.values()]
    if problem := mismatch(Entries(list(entries), counts), model):
        raise DataError(f"{os.fspath(path)}: must be the dictionary of {model.path}: {problem}")
    return entries
