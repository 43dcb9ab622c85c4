"""A model of another toolkit as a folder that every verb takes: checkpoint, dictionaries and SentencePiece models."""

import logging
import shutil
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import ARCH_CONFIG_REGISTRY
from omegaconf import OmegaConf
from torch import Tensor

import fairseq_compress
from fairseq_compress.checkpoint.load import build_model
from fairseq_compress.checkpoint.state import plain_cfg, with_model, write_state
from fairseq_compress.corpus.vocabulary import dictionary_lines
from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.work.files import PathLike, atomic_write, new_folder

CHECKPOINT = "model.pt"
ARCHITECTURE = "compressed_transformer"


@dataclass(frozen=True)
class ImportedModel:
    """A model in the names and shapes of ``compressed_transformer``."""

    options: Mapping[str, Any]
    """Its options, as fairseq-train's parser names them; the others have the defaults of the architecture."""
    weights: Mapping[str, Tensor]
    symbols: tuple[Sequence[str], Sequence[str]]
    """Entries of the dictionaries of source and target behind fairseq's four, in the order of the rows."""
    languages: tuple[str, str]
    sentencepiece: tuple[PathLike, PathLike | None]
    """Files of the source, and of the target if it has its own."""
    title: str = ""
    """What the model is, in a few words, for messages."""


def write_imported(model: ImportedModel, output: PathLike) -> dict[str, Any]:
    """Write ``model.pt``, ``dict.LANG.txt`` and the SentencePiece models into a folder, which must not exist.

    The weights are loaded into the model once, so that nothing is written where anything does not fit.
    """
    folder = Path(output)
    if folder.exists():
        raise ConfigError(f"--output: must not exist, got {folder}")
    if model.languages[0] == model.languages[1]:
        raise ConfigError(f"--target-lang: must differ from the source language, got {model.languages[1]}")
    fairseq_compress.register()
    state = _state(model)
    with new_folder(folder) as temporary:
        for language, symbols in zip(model.languages, model.symbols, strict=True):
            with atomic_write(temporary / f"dict.{language}.txt") as stream:
                stream.writelines(f"{line}\n" for line in dictionary_lines(symbols))
        for name, path in _sentencepiece_files(model).items():
            shutil.copyfile(path, temporary / name)
        write_state(state, temporary / CHECKPOINT)
    return state


def _sentencepiece_files(model: ImportedModel) -> dict[str, PathLike]:
    source, target = model.sentencepiece
    if target is None:
        return {"sentencepiece.model": source}
    return {"source_sentencepiece.model": source, "target_sentencepiece.model": target}


def _state(model: ImportedModel) -> dict[str, Any]:
    """The checkpoint, without training state."""
    args = Namespace(arch=ARCHITECTURE, task="translation", **model.options)
    ARCH_CONFIG_REGISTRY[ARCHITECTURE](args)
    args.source_lang, args.target_lang = model.languages
    logging.getLogger("hydra").setLevel(logging.WARNING)
    with warnings.catch_warnings():  # fairseq calls hydra in ways that it deprecates
        warnings.simplefilter("ignore")
        cfg = convert_namespace_to_omegaconf(args)
    entries = [_dictionary(symbols) for symbols in model.symbols]
    if getattr(args, "share_all_embeddings", False):
        entries[1] = entries[0]
    try:
        build_model(model.title, {"model": dict(model.weights)}, cfg, entries[0], entries[1])
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("checkpoint ", "", 1)) from None
    plain = plain_cfg(OmegaConf.create({"model": cfg.model, "task": cfg.task}, flags={"allow_objects": True}))
    return with_model({"optimizer_history": []}, plain_cfg(cfg) | plain, model.weights)


def _dictionary(symbols: Sequence[str]) -> Dictionary:
    entries = Dictionary()
    for symbol in symbols:
        entries.add_symbol(symbol)
    return entries
