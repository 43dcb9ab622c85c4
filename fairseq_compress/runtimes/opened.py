"""Options to open a model, and the opened model, of any runtime."""

import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.decoding.search_model import SubwordTranslator
from fairseq_compress.decoding.search_options import LineOptions, SearchOptions
from fairseq_compress.decoding.translation_lines import LINES_AT_ONCE, Translation, translate_lines
from fairseq_compress.decoding.vocabulary import read_symbols
from fairseq_compress.errors import ConfigError
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.work.files import PathLike, file_sha256


@dataclass(frozen=True)
class RuntimeOptions:
    """How a model is opened; ``data``, ``precision`` and ``max_tokens`` are for checkpoints."""

    search: Mapping[str, Any] = field(default_factory=dict)
    """Options of the search that replace those of the export or the defaults."""
    nbest: int | None = 1
    """Hypotheses of each sentence; None: the beam."""
    threads: int | None = None
    """None: ``OMP_NUM_THREADS`` if it is set, else all cores."""
    text: bool = True
    """Raw text in and out; else subwords."""
    sentencepiece: tuple[PathLike, PathLike | None] | None = None
    """Models of the source, and of the target if it has its own; None: those of the model directory."""
    languages: tuple[str | None, str | None] = (None, None)
    """Required source and target language; None: any."""
    device: str = "auto"
    data: str | None = None  # folder with dict.LANG.txt
    precision: str = "float32"  # a key of teachers.loading.PRECISIONS
    max_tokens: int | None = None  # source tokens of a batch

    def search_options(self, exported: Mapping[str, Any] = {}) -> SearchOptions:
        """The options of the search, with ``exported`` as defaults."""
        search = SearchOptions(**{**exported, **self.search})
        search.check_nbest(self.nbest or 1)
        return search


@dataclass(frozen=True)
class OpenedModel:
    """A model that is ready to translate."""

    translator: SubwordTranslator
    search: SearchOptions
    languages: tuple[str, str]  # source and target
    segmenter: Segmenter | None  # None: subwords in and out
    source_entries: Container[str]  # of the source dictionary
    metadata: dict[str, Any]
    """``metadata.json`` of a directory; of a checkpoint its runtime and languages."""
    identity: dict[str, Any]
    """Checksums of the model and its dictionaries."""
    precision: str = "float32"
    device: str = "cpu"
    verify: Callable[[], None] = lambda: None
    """Compares every file of a directory with its checksum."""

    def translate(
        self, lines: Iterable[bytes | None], *, report: Callable[[str], None] | None = None,
        lines_at_once: int = LINES_AT_ONCE, translator: SubwordTranslator | None = None, **options: Any,
    ) -> Iterator[Translation]:  # fmt: skip
        """:func:`translate_lines` with this model, or with ``translator``; ``options`` are of :class:`LineOptions`."""
        assert self.segmenter is not None
        source, target = self.languages
        whole = LineOptions(source_lang=source, target_lang=target, **options)
        return translate_lines(lines, translator or self.translator, self.segmenter, whole, report, lines_at_once)


def open_directory(
    directory: ModelDirectory, options: RuntimeOptions, model: Callable[..., SubwordTranslator]
) -> OpenedModel:
    """Open a model directory as a ``model(directory, search options, nbest, threads)``."""
    _check_directory(directory, options)
    metadata, languages = directory.metadata, directory.metadata["languages"]
    search = options.search_options(metadata["search"])
    return OpenedModel(
        model(directory, search, options.nbest or search.beam, options.threads), search,
        (languages["source"], languages["target"]), directory.segmenter() if options.text else None,
        set(read_symbols(directory.path, "source")), metadata, directory.identity(), metadata["quantization"],
        verify=directory.verify,
    )  # fmt: skip


def _check_directory(directory: ModelDirectory, options: RuntimeOptions) -> None:
    """Refuse options that do not fit a directory."""
    path = directory.path
    for option, given, default in (("--data", options.data, None), ("--precision", options.precision, "float32")):
        if given != default:
            raise ConfigError(f"{option}: requires a checkpoint, {path} is a directory; got {given}")
    if options.device == "cuda":
        raise ConfigError(f"--device: must be cpu for the directory {path}, got cuda")
    models = options.sentencepiece
    for place, side in enumerate(("source", "target")):
        language, wanted = directory.metadata["languages"][side], options.languages[place]
        if wanted not in (None, language):
            raise ConfigError(f"--{side}-lang: must be {language}, the language of {path}, got {wanted}")
        model = models and (models[place] or models[0])
        if model and file_sha256(model) != file_sha256(own := directory.sentencepiece_model(side)):
            raise ConfigError(f"--{side}-sentencepiece-model: must be {own}, got {os.fspath(model)}")
