"""A model directory of any runtime, opened. A runtime is imported only when a model needs it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fairseq_compress.corpus.segmentation import Segmenter
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.decoding.translation_lines import LineOptions, PieceTranslator
from fairseq_compress.errors import DataError, MissingPackageError
from fairseq_compress.extras import explained
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.work.files import PathLike


class OpenedModel(NamedTuple):
    """What translating text requires."""

    directory: ModelDirectory
    search: SearchOptions
    model: PieceTranslator
    segmenter: Segmenter
    languages: tuple[str, str]
    """Of source and target."""

    def line_options(self, **values: Any) -> LineOptions:
        """:class:`LineOptions` with these languages."""
        return LineOptions(source_lang=self.languages[0], target_lang=self.languages[1], **values)


def open_directory(
    path: PathLike, search: Mapping[str, Any] | None = None, nbest: int | None = 1, threads: int | None = None
) -> OpenedModel:
    """Open what ``fairseq-compress export`` wrote.

    Args:
        search: options in place of those of the export.
        nbest: hypotheses of each sentence; None: as many as the beam has.
        threads: as of :func:`open_model`.

    Raises:
        ConfigError: more hypotheses than the beam has, or as :func:`open_model`.
        DataError, MissingPackageError: as :func:`open_model`.
    """
    directory = ModelDirectory.open(path)
    options = SearchOptions(**(directory.metadata["search"] | dict(search or {})))
    if nbest is not None:
        options.check_nbest(nbest)
    model = open_model(directory, options, options.beam if nbest is None else nbest, threads)
    languages = directory.metadata["languages"]
    return OpenedModel(directory, options, model, directory.segmenter(), (languages["source"], languages["target"]))


def open_model(
    directory: ModelDirectory, options: SearchOptions, nbest: int = 1, threads: int | None = None
) -> PieceTranslator:
    """Load the model. No translation is given before every file was compared with its checksum.

    Args:
        directory: a complete one.
        options: of the search.
        nbest: hypotheses of each sentence.
        threads: None: ``OMP_NUM_THREADS`` if it is set, else all cores.

    Raises:
        DataError: the files are damaged, or the runtime cannot be imported.
        MissingPackageError: the runtime is not installed.
        ConfigError: the runtime or the model does not allow these options.
    """
    runtime = directory.metadata["runtime"]
    try:
        with explained():
            if runtime == "onnx":
                from fairseq_compress.runtimes.onnx.model import OnnxModel

                return OnnxModel(directory, options, nbest, threads)
            from fairseq_compress.runtimes.ctranslate2.model import CTranslate2Model

            return CTranslate2Model(directory, options, nbest, threads)
    except MissingPackageError:
        raise
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{directory.path}: needs the runtime {runtime}, which cannot be imported: {reason}") from None
