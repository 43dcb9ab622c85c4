"""A model directory of any runtime, opened. A runtime is imported only when a model needs it."""

from fairseq_compress.errors import DataError, MissingPackageError
from fairseq_compress.extras import explained
from fairseq_compress.inference.model_directory import ModelDirectory
from fairseq_compress.inference.search_options import SearchOptions
from fairseq_compress.inference.translation_lines import PieceTranslator


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
                from fairseq_compress.inference.onnx_model import OnnxModel

                return OnnxModel(directory, options, nbest, threads)
            from fairseq_compress.inference.ctranslate2_model import CTranslate2Model

            return CTranslate2Model(directory, options, nbest, threads)
    except MissingPackageError:
        raise
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{directory.path}: needs the runtime {runtime}, which cannot be imported: {reason}") from None
