"""Loading one or several trained models with their dictionaries, without a task, a data set or a trainer.

The models' classes must be registered: call :func:`fairseq_compress.register` before.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import BaseFairseqModel
from torch import Tensor, nn

from fairseq_compress.checkpoint.load import build_model, load_upgraded, task_of
from fairseq_compress.corpus.segmentation import SEGMENTERS
from fairseq_compress.corpus.segmentation.choice import Languages, Segmentation
from fairseq_compress.corpus.segmentation.segmenter import Segmenter
from fairseq_compress.corpus.vocabulary_match import Entries, joint_mismatch, mismatch, tokenizer_caution
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.autocast import warn_if_emulated
from fairseq_compress.options import flag
from fairseq_compress.teachers.dictionaries import dictionary_sha256, find_dictionary
from fairseq_compress.work.files import file_sha256

logger = logging.getLogger(__name__)

# Types of the weights as they are loaded; the decoding step makes its own integers of them (see projections.py).
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.float32}


@dataclass(frozen=True)
class LoadedModels:
    """An ensemble of translation models over the same dictionaries, in eval mode and never to be trained."""

    models: list[BaseFairseqModel]
    source: Dictionary
    target: Dictionary
    source_lang: str
    target_lang: str
    facts: dict[str, Any]
    """SHA-256 of every checkpoint and of both dictionaries, as JSON can hold it."""
    precision: str = "float32"
    """Of the decoding step, a key of :data:`PRECISIONS`."""

    def open_segmenter(self, segmentation: Segmentation) -> Segmenter:
        """See :func:`open_segmenter`."""
        return open_segmenter(segmentation, (self.source_lang, self.target_lang), self.source, self.target)

    @property
    def max_source_positions(self) -> int:
        """The longest source of every model, in tokens with EOS."""
        return min(int(model.max_positions()[0]) for model in self.models)

    @property
    def max_target_positions(self) -> int:
        """The longest target of every model, in tokens with EOS."""
        return min(int(model.max_decoder_positions()) for model in self.models)


def load_models(
    paths: str, dictionary_dir: str | None = None, *, source_lang: str | None = None, target_lang: str | None = None,
    precision: str = "float32", device: torch.device | str = "cpu",
) -> LoadedModels:  # fmt: skip
    """Load the checkpoints ``A.pt[:B.pt...]``.

    Args:
        paths: checkpoints separated by ``:``, as fairseq separates the members of an ensemble.
        dictionary_dir: folder of ``dict.LANG.txt`` (the option ``--data``), see :func:`find_dictionary`.
        source_lang, target_lang: required where the checkpoint does not name its languages, else compared.
        precision: type of the weights, a key of :data:`PRECISIONS`; with int8 that of a decoding step's products only.
    """
    names = [path for path in paths.split(":") if path]
    if not names:
        raise ConfigError("--checkpoint: must name at least one checkpoint, got an empty value")
    if precision == "int8" and torch.device(device).type != "cpu":
        raise ConfigError("--precision: must be float32 or bfloat16 on a GPU, got int8")
    if precision == "bfloat16":
        warn_if_emulated("--precision", torch.device(device).type)
    loaded: list[tuple[BaseFairseqModel, Dictionary, Dictionary]] = []
    for name in names:
        state, cfg = load_upgraded(name)
        task_of(name, cfg, translates=True)
        source_lang, target_lang = _languages(name, cfg, (source_lang, target_lang))
        source = find_dictionary(name, cfg, source_lang, dictionary_dir, "--data")
        target = find_dictionary(name, cfg, target_lang, dictionary_dir, "--data")
        if loaded:
            _check_equal(names[0], name, (source_lang, target_lang), loaded[0][1:], (source, target))
        model = build_model(name, state, cfg, source, target)
        loaded.append((_frozen(model, PRECISIONS[precision], device), source, target))
    _, source, target = loaded[0]
    facts = {
        "checkpoints": [file_sha256(name) for name in names],
        "source_dictionary": dictionary_sha256(source),
        "target_dictionary": dictionary_sha256(target),
    }
    models = [model for model, _, _ in loaded]
    return LoadedModels(models, source, target, str(source_lang), str(target_lang), facts, precision)


def pick_device(name: str) -> torch.device:
    """``cpu``, ``cuda`` (the device of LOCAL_RANK), or for ``auto`` cuda where it exists."""
    devices = torch.cuda.device_count()
    if name == "cuda" and not devices:
        raise ConfigError("--device cuda: there is no such device here")
    if name == "cpu" or not devices:
        return torch.device("cpu")
    local_rank = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
    return torch.device("cuda", int(local_rank) % devices)


def _languages(path: str, cfg: Any, wanted: tuple[str | None, str | None]) -> tuple[str, str]:
    """The languages of a checkpoint, or those that are given for it."""
    found = []
    for key, given in zip(("source_lang", "target_lang"), wanted, strict=True):
        own = getattr(cfg.task, key, None)
        if given is not None and own is not None and given != own:
            raise ConfigError(f"{flag(key)}: must be {own}, the language of checkpoint {path}, got {given}")
        if (language := given or own) is None:
            raise ConfigError(f"{flag(key)}: must be given, checkpoint {path} does not tell its languages")
        found.append(str(language))
    return found[0], found[1]


def _check_equal(
    first: str, other: str, languages: Sequence[str], ones: Sequence[Dictionary], twos: Sequence[Dictionary]
) -> None:
    """Check that the members of an ensemble have equal dictionaries."""
    for language, one, two in zip(languages, ones, twos, strict=True):
        if one.symbols != two.symbols:
            raise ConfigError(
                f"--checkpoint: the models of an ensemble must have equal {language} dictionaries, those of "
                f"{os.fspath(Path(first))} and {os.fspath(Path(other))} differ ({len(one)} and {len(two)} entries)"
            )


def _frozen(model: BaseFairseqModel, dtype: torch.dtype, device: torch.device | str) -> BaseFairseqModel:
    model.make_generation_fast_(need_attn=False)
    if dtype is torch.bfloat16:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(contiguous_inputs)
    return model.to(device=device, dtype=dtype).requires_grad_(False)


def contiguous_inputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A pre-hook for models of stock fairseq, which multiply transposed views: in bfloat16 on a CPU 18 times slower."""
    return tuple(tensor.contiguous() for tensor in inputs)


def open_segmenter(
    segmentation: Segmentation, languages: Languages, source_entries: Dictionary, target_entries: Dictionary
) -> Segmenter:
    """Open a segmentation and compare it with the dictionaries."""
    segmenter, option = segmentation.open(languages), SEGMENTERS[segmentation.kind].option
    for side, dictionary in (("source", source_entries), ("target", target_entries)):
        if caution := _tokenizer_caution(segmentation, _entries(dictionary)):
            logger.warning("the %s dictionary of the checkpoint: %s", side, caution)
    if segmentation.target is not None and source_entries.symbols == target_entries.symbols:
        problem = joint_mismatch(_entries(source_entries), segmenter, segmenter.target)
        _refuse(problem, option, f"{segmenter.path} and {segmenter.target.path}", "shared")
        return segmenter
    for side, own, dictionary in (("source", segmenter, source_entries), ("target", segmenter.target, target_entries)):
        _refuse(mismatch(_entries(dictionary), own), option, own.path, side)
    return segmenter


def _tokenizer_caution(segmentation: Segmentation, entries: Entries) -> str | None:
    """Of the encodings by merges, whose text is tokenized as a rule."""
    if segmentation.kind in ("sentencepiece", "none"):
        return None
    return tokenizer_caution(entries, segmentation.tokenizer != "none" and not segmentation.no_escape)


def _entries(dictionary: Dictionary) -> Entries:
    first = dictionary.nspecial
    return Entries(dictionary.symbols[first:], dictionary.count[first:])


def _refuse(problem: str | None, option: str, path: str, side: str) -> None:
    if problem:
        name = option.removeprefix("--")
        raise ConfigError(
            f"{option}: must be that of the checkpoint, and {path} does not belong to its {side} "
            f"dictionary: {problem} (--source-{name}, --target-{name} for one of each side)"
        )
