"""A model directory of ``fairseq-compress export`` as the teacher that ``fairseq-compress nbest`` decodes with."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fairseq.data import Dictionary

from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.decoding.vocabulary import read_symbols
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.open_model import open_directory
from fairseq_compress.runtimes.torch.beam_search import Found
from fairseq_compress.teachers.dictionaries import dictionary_sha256
from fairseq_compress.work.files import PathLike, file_sha256


class ExportedTeacher:
    """The dictionaries of an exported model and a search over token ids, as of a checkpoint.

    Args:
        path: the directory; every file is compared with its checksum.
        options: of the search.
        source_lang, target_lang: to insist on.

    Raises:
        DataError: the directory is damaged.
        ConfigError: it is for other languages, or the beam is too large for its dictionary.
    """

    def __init__(
        self, path: PathLike, options: SearchOptions, source_lang: str | None = None, target_lang: str | None = None
    ) -> None:
        self._opened = open_directory(path, asdict(options), None)
        directory = self._opened.directory
        directory.verify()
        metadata = directory.metadata
        self.source_lang, self.target_lang = self._opened.languages
        for option, found, wanted in (
            ("--source-lang", self.source_lang, source_lang), ("--target-lang", self.target_lang, target_lang)
        ):  # fmt: skip
            if wanted not in (None, found):
                raise ConfigError(f"{option}: must be {found}, the language of {path}, got {wanted}")
        self.source, self.target = (_dictionary(directory, side) for side in ("source", "target"))
        self.max_source_positions: int = metadata["positions"]["source"]
        self.facts: dict[str, Any] = {
            "checkpoints": [metadata["checkpoint_sha256"]],
            "source_dictionary": metadata["vocabulary"]["source_dictionary"],
            "target_dictionary": metadata["vocabulary"]["target_dictionary"],
            "runtime": f"{metadata['runtime']} {metadata['runtime_version']}",
            "model": hashlib.sha256(json.dumps(metadata["files"], sort_keys=True).encode()).hexdigest(),
        }
        self.precision: str = metadata["quantization"]

    def open_segmenter(self, model: PathLike, target: PathLike | None = None) -> Segmenter:
        """Open sentencepiece models, which must be those of the directory.

        Raises:
            DataError: a file is missing.
            ConfigError: it is another model.
        """
        for side, path in (("source", model), ("target", model if target is None else target)):
            own = self._opened.directory.sentencepiece_model(side)
            if file_sha256(path) != file_sha256(own):
                raise ConfigError(f"--{side}-sentencepiece-model: must be {own}, got {os.fspath(path)}")
        return self._opened.segmenter

    def search(self, sentences: Sequence[Sequence[int]]) -> list[list[Found]]:
        """As :meth:`fairseq_compress.runtimes.torch.beam_search.BeamSearch.search`."""
        pieces = [[self.source.symbols[index] for index in sentence[:-1]] for sentence in sentences]
        return [
            [Found([self.target.index(piece) for piece in best.pieces], best.score) for best in hypotheses]
            for hypotheses in self._opened.model.translate(pieces)
        ]


def _dictionary(directory: ModelDirectory, side: str) -> Dictionary:
    """The fairseq dictionary that the vocabulary was written from.

    Raises:
        DataError: it is another one than the metadata say.
    """
    entries = Dictionary()
    for symbol in read_symbols(directory.path, side)[len(entries) :]:
        entries.add_symbol(symbol)
    if dictionary_sha256(entries) != directory.metadata["vocabulary"][f"{side}_dictionary"]:
        raise DataError(f"{directory.path}: its {side} vocabulary is not the one of its metadata")
    return entries
