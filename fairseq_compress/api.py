"""The Python API, exported by :mod:`fairseq_compress` (docs/api.md).

Importing this module imports neither torch nor fairseq, and :class:`Translator` works without them.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.errors import ConfigError
from fairseq_compress.extras import explained

if TYPE_CHECKING:
    from fairseq.data import Dictionary
    from fairseq.models import BaseFairseqModel
    from fairseq.tasks import FairseqTask
    from omegaconf import DictConfig
    from torch import nn

    from fairseq_compress.weights.rules import Plan

    Model = TypeVar("Model", bound=nn.Module)

PathLike = str | os.PathLike[str]


class Translator:
    """Translates lines of text with a model directory or a checkpoint.

    A directory of ``fairseq-compress export`` needs ONNX Runtime or CTranslate2, but neither torch nor fairseq. Empty
    lines stay empty. Long lines are split at sentence ends, and their translations joined.

    Args:
        model: a model directory, or a checkpoint, plain or packed.
        threads: number of threads; default: ``OMP_NUM_THREADS`` if it is set, else all cores.
        longest: maximum number of subwords translated at once.
        split: split longer lines; with False they are refused.
        data: for a checkpoint, the folder with ``dict.LANG.txt``; default: the folder of the checkpoint, else the one
            that it was trained on.
        sentencepiece_model: for a checkpoint, its sentencepiece model.
        target_sentencepiece_model: for a checkpoint, the model of the target side if it has its own.
        segmentation: instead of both, for a checkpoint with another segmentation, such as
            ``Segmentation("bpecodes", kind="fastbpe", tokenizer="moses")``.
        search: options of the beam search (``beam``, ``lenpen``, ``max_len_a``, ``max_len_b``, ``min_len``, ``unkpen``,
            ``no_repeat_ngram_size``); default: the options of the export.

    Raises:
        DataError, CheckpointError: the model is missing or damaged.
        ConfigError: a value is outside its range.
        MissingPackageError: the runtime is not installed.
    """

    def __init__(
        self, model: PathLike, *, threads: int | None = None, longest: int = 256, split: bool = True,
        data: PathLike | None = None, sentencepiece_model: PathLike | None = None,
        target_sentencepiece_model: PathLike | None = None, segmentation: Segmentation | None = None,
        **search: int | float,
    ) -> None:  # fmt: skip
        from fairseq_compress import runtimes
        from fairseq_compress.runtimes.options import RuntimeOptions

        folder = None if data is None else os.fspath(data)
        if segmentation is None and sentencepiece_model is not None:
            segmentation = Segmentation(sentencepiece_model, target_sentencepiece_model)
        options = RuntimeOptions(search, nbest=None, threads=threads, segmentation=segmentation, data=folder)
        self._model = runtimes.open(model, options)
        self._lines: dict[str, Any] = {"longest": longest, "long_lines": "split" if split else "refuse"}
        self.metadata: dict[str, Any] = self._model.metadata
        """``metadata.json``: languages, architecture, parameters, quantization, results of the verification."""

    def __call__(self, lines: Iterable[str]) -> list[str]:
        """The best translation of each line.

        Raises:
            DataError: a line is too long and ``split`` is False, or the files of the model were altered.
        """
        return [best[0].text for best in self.nbest(lines, 1)]

    def nbest(self, lines: Iterable[str], n: int) -> list[list[Hypothesis[str]]]:
        """The ``n`` best translations of each line, best first; an empty line has one, with score 0.

        Raises:
            ConfigError: ``n`` is not in [1, beam].
            DataError: see :meth:`__call__`.
        """
        if isinstance(lines, str):
            raise TypeError("lines must be an iterable of strings, got one string; give [line]")
        if not 1 <= n <= self._model.search.beam:
            raise ConfigError(f"n: must be in 1 to beam ({self._model.search.beam}), got {n}")
        found = self._model.translate((line.encode() for line in lines), nbest=n, **self._lines)
        return [translation.hypotheses for translation in found]


@dataclass(frozen=True)
class LoadedModel:
    """A trained model with its dictionaries and training configuration."""

    model: BaseFairseqModel  # in evaluation mode; ``model.train()`` to continue training
    task: FairseqTask  # the task of its training, without data
    source_dictionary: Dictionary
    target_dictionary: Dictionary
    cfg: DictConfig


def load(path: PathLike, data: PathLike | None = None) -> LoadedModel:
    """Load a fairseq checkpoint, or a packed one of ``fairseq-compress quantize``, on the CPU.

    No code in the file is executed.

    Args:
        path: the checkpoint.
        data: folder with ``dict.LANG.txt``; default: the folder of the checkpoint, else the folder that it was trained
            on.

    Raises:
        CheckpointError: the file is missing, damaged or unsafe.
        ConfigError: no dictionary was found.
        MissingPackageError: the extra ``train`` is not installed.
    """
    with explained():
        from fairseq.tasks import translation  # noqa: F401 - whole, before our modules import parts

        from fairseq_compress.checkpoint.load import build_model, load_upgraded, task_of
        from fairseq_compress.teachers.dictionaries import find_dictionary

    name, folder = os.fspath(path), None if data is None else os.fspath(data)
    state, cfg = load_upgraded(name)
    task = task_of(name, cfg)
    languages = (cfg.task.source_lang, cfg.task.target_lang)
    source, target = (find_dictionary(name, cfg, language, folder, "data") for language in languages)
    model = build_model(name, state, cfg, source, target).eval()
    return LoadedModel(model, task(cfg.task, source, target), source, target, cfg)


def quantize(model: Model, plan: PathLike | Mapping[str, Any] | Plan) -> Model:
    """Quantize a copy of a model by a compression plan, without training (docs/quantization.md).

    The copy computes with quantized weights; in training, gradients are straight-through. Its state dict has the keys
    of the original model.

    Args:
        model: any module with linear layers and embeddings, such as ``load(path).model``; it is not changed. A
            compressed model must be made plain first (``fairseq-compress materialize``).
        plan: a YAML file, the same content as a mapping, or a :class:`fairseq_compress.weights.rules.Plan`.

    Raises:
        ConfigError: the plan is invalid or does not match the model, or the model is already compressed.
        MissingPackageError: the extra ``train`` is not installed.
    """
    with explained():
        from fairseq_compress.weights.attach import attach_plan
        from fairseq_compress.weights.reading import parse_plan, read_plan, set_plan

    if isinstance(plan, (str, os.PathLike)):
        plan = read_plan(os.fspath(plan))
    elif isinstance(plan, Mapping):
        plan = parse_plan(json.dumps(plan))
    quantized = copy.deepcopy(model)
    state = model.state_dict()
    attach_plan(plan, quantized)
    quantized.load_state_dict(state)
    for name in ("args", "cfg"):
        if (options := getattr(quantized, name, None)) is not None:
            set_plan(options, plan)
    return quantized
