"""A model of any form as a translator of lines: a model directory of export, or a checkpoint."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fairseq_compress import register
from fairseq_compress.cli import common
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError
from fairseq_compress.options import flag

if TYPE_CHECKING:
    from fairseq_compress.corpus.segmentation import Segmenter
    from fairseq_compress.decoding.translation_lines import LineOptions, PieceTranslator


class Opened(NamedTuple):
    """What translating lines of text requires."""

    model: "PieceTranslator"
    segmenter: "Segmenter"
    languages: tuple[str, str]
    """Of source and target."""

    def line_options(self, **values: Any) -> "LineOptions":
        """The options of lines with these languages."""
        from fairseq_compress.decoding.translation_lines import LineOptions

        return LineOptions(source_lang=self.languages[0], target_lang=self.languages[1], **values)


def open_checkpoint(
    path: str, data: str | None, models: common.SentencePieceModels, search: Mapping[str, Any],
    nbest: int = 1, threads: int | None = None,
) -> Opened:  # fmt: skip
    """Open a directory of ``fairseq-compress export`` or a checkpoint.

    Args:
        path: of the model.
        data: with a checkpoint: the folder of its dictionaries.
        models: with a checkpoint, and required there.
        search: options of the search in place of the defaults.
        nbest: hypotheses of each sentence.
        threads: default: those of the runtime.

    Raises:
        ConfigError: the options do not fit the form of the model.
        DataError, CheckpointError: the model is missing or damaged.
    """
    if not os.path.exists(path):
        raise ConfigError(
            f"--checkpoint: must be a directory of fairseq-compress export or a checkpoint, {path} does not exist"
        )
    if os.path.isdir(path):
        from fairseq_compress.runtimes.open_model import open_directory

        given = [*(name for name, value in vars(models).items() if value), *(["data"] if data else [])]
        if given:
            raise ConfigError(f"{flag(given[0])}: requires a checkpoint, {path} is a directory")
        opened = open_directory(path, search, nbest, threads)
        return Opened(opened.model, opened.segmenter, opened.languages)
    if (files := models.given()) is None:
        raise ConfigError(f"--sentencepiece-model: must be given with the checkpoint {path}")
    options = SearchOptions(**search)
    options.check_nbest(nbest)
    register()
    import torch

    from fairseq_compress.runtimes.torch.translator import CheckpointModel
    from fairseq_compress.teachers.loading import load_models, pick_device

    if threads:
        torch.set_num_threads(threads)
    loaded = load_models(path, data, device=pick_device("auto"))
    segmenter = loaded.open_segmenter(*files)
    return Opened(CheckpointModel(loaded, options, nbest), segmenter, (loaded.source_lang, loaded.target_lang))
