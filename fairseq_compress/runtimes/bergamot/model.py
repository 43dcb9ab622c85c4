"""A model directory of Marian's 8-bit format, in Firefox's engine or, where that lacks something, in its simulation."""

import importlib
import re
from copy import copy
from functools import cached_property
from typing import Any, Protocol

from fairseq_compress.corpus.segmentation.sentencepiece_model import open_model as open_sentencepiece
from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.options import flag
from fairseq_compress.runtimes import RUNTIMES
from fairseq_compress.runtimes.bergamot.shortlist import read_shortlist
from fairseq_compress.runtimes.bergamot.simulation import Shortlist, Simulation
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.opened import OpenedModel, open_directory
from fairseq_compress.runtimes.options import RuntimeOptions
from fairseq_compress.work.marian_file import read_marian

SEARCH = RUNTIMES["bergamot"].search
_BYTES = re.compile(r"(?:<0x[0-9A-F]{2}>)+")


class Engine(Protocol):
    """Pieces of a sentence to the text of its translation."""

    def __call__(self, pieces: list[str]) -> str: ...


def open_model(directory: ModelDirectory, options: RuntimeOptions) -> OpenedModel:
    return open_directory(directory, options, BergamotModel)


class BergamotModel:
    """Greedy search, sentence by sentence, in one thread; ``nbest`` must be 1."""

    def __init__(
        self, directory: ModelDirectory, options: SearchOptions, nbest: int = 1, threads: int | None = None
    ) -> None:
        for name, value in SEARCH.items():
            if getattr(options, name) != value:
                raise ConfigError(
                    f"{flag(name)}: must be {value} with the runtime bergamot, got {getattr(options, name)}"
                )
        directory.verify()  # before: the engine panics on some damaged models
        self.longest: int = directory.metadata["positions"]["source"] - 1
        self._target = open_sentencepiece(directory.segmentation().paths()[-1])
        self._directory, facts = directory, directory.metadata["bergamot"]
        self._engine = _engine(directory, facts)

    def translate(self, sentences: list[list[str]]) -> list[list[Hypothesis[list[str]]]]:
        texts = map(self._engine, sentences)
        return [[Hypothesis(0.0, self._target.encode(text, out_type=str))] for text in texts]

    def choices(self, sentence: list[str]) -> list[str]:
        """The subwords among which a translation is chosen."""
        shortlist, source, target = self._choosing
        chosen = shortlist.of([*map(source.piece_to_id, sentence), source.eos_id()])
        return [target.id_to_piece(entry) for entry in chosen.tolist()]

    @cached_property
    def _choosing(self) -> tuple[Shortlist, Any, Any]:
        """The shortlist and both vocabularies, which the engine has of its own."""
        facts = self._directory.metadata["bergamot"]
        shortlist = _shortlist(self._directory, facts)
        assert shortlist is not None
        source, target = (open_sentencepiece(self._directory.path / name) for name in facts["vocabularies"])
        return shortlist, source, target

    def without_shortlist(self) -> "BergamotModel":
        """The same model, which computes all entries."""
        found = copy(self)
        found._engine = _engine(self._directory, self._directory.metadata["bergamot"] | {"shortlist": None})
        return found


def _shortlist(directory: ModelDirectory, facts: dict[str, Any]) -> Shortlist | None:
    name, (source, target) = facts["shortlist"], facts["vocabularies"]
    return None if name is None else read_shortlist(directory.path / name, shared=source == target)


def _engine(directory: ModelDirectory, facts: dict[str, Any]) -> Engine:
    return (Simulated if facts["simulated"] else Firefox)(directory, facts)


class Firefox:
    """``fxtranslate``, the engine of Firefox Translations."""

    def __init__(self, directory: ModelDirectory, facts: dict[str, Any]) -> None:
        fxtranslate: Any = importlib.import_module("fxtranslate")
        self._path = directory.path
        self._source = open_sentencepiece(directory.segmentation().paths()[0])
        names = [facts["model"], *facts["vocabularies"], *filter(None, [facts["shortlist"]])]
        try:
            self._engine = fxtranslate.Translator(*((self._path / name).read_bytes() for name in names))
        except OSError as error:
            raise DataError(f"cannot read {error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise DataError(f"{self._path}: fxtranslate cannot load it: {error}") from None

    def __call__(self, pieces: list[str]) -> str:
        text = self._source.decode(pieces)
        try:
            return joined_bytes(self._engine.translate(text))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # its panics are no Exception
            raise DataError(f"{self._path}: fxtranslate cannot translate with it: {error}") from None


class Simulated:
    """The same computation in numpy, slowly."""

    def __init__(self, directory: ModelDirectory, facts: dict[str, Any]) -> None:
        source, target = (open_sentencepiece(directory.path / name) for name in facts["vocabularies"])
        self._source, self._target = source, target
        file = read_marian(directory.path / facts["model"])
        self._model = Simulation(file.items, facts["heads"], tuple(facts["layers"]), _shortlist(directory, facts))

    def __call__(self, pieces: list[str]) -> str:
        ids = [self._source.piece_to_id(piece) for piece in pieces]
        found = self._model.translate([*ids, self._source.eos_id()])
        text: str = self._target.decode([token for token in found if token != self._target.unk_id()])
        return text


def joined_bytes(text: str) -> str:
    """``fxtranslate`` writes the pieces of single bytes as ``<0xE2>``; here they become text."""

    def decoded(match: re.Match[str]) -> str:
        return bytes.fromhex(re.sub("<0x|>", "", match[0])).decode("utf-8", errors="replace")

    return _BYTES.sub(decoded, text)
