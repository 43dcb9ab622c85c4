"""Frozen teachers: loaded from checkpoints, checked against the student's task, never trained, never saved."""

from typing import Any

import torch
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from fairseq_compress.checkpoint.load import build_model, load_upgraded
from fairseq_compress.errors import ConfigError
from fairseq_compress.teachers.dictionaries import check_same, find_dictionary


class FrozenTeachers:
    """One or several teachers that give logits for the student's batches.

    Deliberately no ``nn.Module``: a criterion that holds it has no parameter of a teacher, so none reaches the
    optimizer, DDP or a checkpoint. The models are in eval mode with ``requires_grad`` off.

    Args:
        paths: checkpoints separated by ``:``, as fairseq separates the members of an ensemble.
        task: the student's task; its languages and dictionaries are the rule.
        dictionary_dir: where the teachers' ``dict.LANG.txt`` are, see :func:`find_dictionary`.

    Raises:
        ConfigError: no path, another language pair, another dictionary.
        CheckpointError: a file is missing, damaged or unsafe.
    """

    def __init__(self, paths: str, task: FairseqTask, dictionary_dir: str | None = None) -> None:
        names = [path for path in paths.split(":") if path]
        if not names:
            raise ConfigError("--teacher-path: must name at least one checkpoint, got an empty value")
        self.models = [_load(name, task, dictionary_dir) for name in names]

    def logits(self, sample: dict[str, Any], dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Teacher-forced logits for a batch of fairseq: one (B, T, V) tensor per teacher, on the batch's device.

        The trainer moves and casts the student only (``--fp16``, ``--bf16``, CUDA), so the teachers follow it here,
        once: ``dtype`` is the type of the student's weights.
        """
        net_input = sample["net_input"]
        device = net_input["src_tokens"].device
        self.models = [model.to(device=device, dtype=dtype) for model in self.models]
        with torch.no_grad():
            return [model(**net_input)[0] for model in self.models]


def _load(path: str, task: FairseqTask, dictionary_dir: str | None) -> BaseFairseqModel:
    state, cfg = load_upgraded(path)
    _check_languages(path, cfg, task)
    pairs = (
        (task.cfg.source_lang, task.source_dictionary),
        (task.cfg.target_lang, task.target_dictionary),
    )
    for language, dictionary in pairs:
        check_same(path, language, find_dictionary(path, cfg, language, dictionary_dir), dictionary)
    model = build_model(path, state, cfg, task.source_dictionary, task.target_dictionary)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(_contiguous_inputs)
    return model.eval().requires_grad_(False)


def _contiguous_inputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A teacher of stock fairseq multiplies transposed views, in bfloat16 on a CPU 18 times as slowly."""
    return tuple(tensor.contiguous() for tensor in inputs)


def _check_languages(path: str, cfg: Any, task: FairseqTask) -> None:
    theirs = (cfg.task.get("source_lang"), cfg.task.get("target_lang"))
    ours = (task.cfg.source_lang, task.cfg.target_lang)
    if theirs != ours:
        raise ConfigError(
            f"--teacher-path {path}: the teacher must translate {ours[0]}-{ours[1]} as the student does, "
            f"it translates {theirs[0]}-{theirs[1]}"
        )
