"""The opened model of any runtime."""

import os
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fairseq_compress.corpus.segmentation import SEGMENTERS
from fairseq_compress.corpus.segmentation.choice import OPTIONS, Segmentation
from fairseq_compress.corpus.segmentation.segmenter import Segmenter
from fairseq_compress.decoding.search_model import SubwordTranslator
from fairseq_compress.decoding.search_options import LineOptions, SearchOptions
from fairseq_compress.decoding.translation_lines import LINES_AT_ONCE, Translation, translate_lines
from fairseq_compress.decoding.vocabulary import read_symbols
from fairseq_compress.errors import ConfigError
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.options import RuntimeOptions
from fairseq_compress.work.files import file_sha256


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
    search, known = options.search_options(metadata["search"]), (languages["source"], languages["target"])
    return OpenedModel(
        model(directory, search, options.nbest or search.beam, options.threads), search, known,
        directory.segmentation().open(known) if options.text else None,
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
    for place, side in enumerate(("source", "target")):
        language, wanted = directory.metadata["languages"][side], options.languages[place]
        if wanted not in (None, language):
            raise ConfigError(f"--{side}-lang: must be {language}, the language of {path}, got {wanted}")
    if options.segmentation is not None:
        _check_segmentation(directory, options.segmentation)


def _check_segmentation(directory: ModelDirectory, given: Segmentation) -> None:
    """Refuse another segmentation than that of a directory."""
    own = directory.segmentation()
    for name, value in given.facts().items():
        if value != (wanted := own.facts().get(name)):
            option = OPTIONS[name]
            raise ConfigError(f"{option}: must be {wanted}, that of {directory.path}, got {value}")
    option = SEGMENTERS[own.kind].option[2:]
    for side, model, mine in (
        ("source", given.source, own.source), ("target", given.target or given.source, own.target or own.source),
    ):  # fmt: skip
        if model is not None and mine is not None and file_sha256(model) != file_sha256(mine):
            raise ConfigError(f"--{side}-{option}: must be {mine}, got {os.fspath(model)}")
