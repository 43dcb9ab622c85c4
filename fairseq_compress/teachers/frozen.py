"""Frozen teachers: loaded from checkpoints, checked against the student's task, never trained, never saved."""

from typing import Any

import torch
import torch.nn.functional as F
from fairseq.models import BaseFairseqModel
from fairseq.modules import FairseqDropout, MultiheadAttention
from fairseq.tasks import FairseqTask
from torch import nn

from fairseq_compress.checkpoint.load import build_model, load_upgraded
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.losses.outputs import Output
from fairseq_compress.models.student_output import projected, student_output, why_no_logits, why_no_output_matrix
from fairseq_compress.teachers.agreement import why_no_teacher
from fairseq_compress.teachers.loading import contiguous_inputs

OPTION = "--teacher-path"


class FrozenTeachers:
    """One or several teachers that are asked about the student's batches.

    Deliberately no ``nn.Module``: a criterion that holds it has no parameter of a teacher, so none reaches the
    optimizer, DDP or a checkpoint. The models are in eval mode with ``requires_grad`` off.

    Args:
        paths: checkpoints separated by ``:``, as fairseq separates the members of an ensemble.
        task: the student's task; its languages and dictionaries are the rule.
        dictionary_dir: where the teachers' ``dict.LANG.txt`` are, see :func:`find_dictionary`.
        all_lengths: whether they are asked about every sentence that the task lets through.
    """

    def __init__(
        self, paths: str, task: FairseqTask, dictionary_dir: str | None = None, all_lengths: bool = True
    ) -> None:
        names = [path for path in paths.split(":") if path]
        if not names:
            raise ConfigError(f"{OPTION}: must name at least one checkpoint, got an empty value")
        loaded = {name: load_upgraded(name) for name in names}
        problems = [
            problem
            for name, (_, cfg) in loaded.items()
            for problem in why_no_teacher(OPTION, name, cfg, task, dictionary_dir, "--teacher-data", None, all_lengths)
        ]
        if problems:
            raise ConfigError("; ".join(problems))
        self.models = [_build(name, *loaded[name], task) for name in names]
        problems = [
            f"{OPTION} {name}: the teacher must give a logit for each entry of the dictionary, got adaptive softmax"
            for name, model in zip(names, self.models, strict=True)
            if why_no_logits(model)
        ]
        if problems:
            raise ConfigError("; ".join(problems))

    def outputs(
        self,
        sample: dict[str, Any],
        dtype: torch.dtype = torch.float32,
        source: str = "auto",
        dropout_passes: int = 0,
        seed: int = 0,
    ) -> list[Output]:
        """What the teachers say of a batch of fairseq, teacher-forced, on the batch's device: one output for each.

        With ``dropout_passes`` M > 0 each teacher gives M outputs with dropout, everything else in eval mode (dropout
        distillation, Bulò et al. 2016): the draws depend on ``seed`` alone and leave torch's generators as they were.

        A :class:`Projected` (its hidden states (B · T, C) and its output matrix) where ``source``, an option of
        :func:`student_output`, asks for that and the teacher allows it, else logits (B · T, V).

        The trainer moves and casts the student only (``--fp16``, ``--bf16``, CUDA), so the teachers follow it here,
        once: ``dtype`` is the type of the student's weights.
        """
        self._follow(sample, dtype)
        net_input = sample["net_input"]
        with torch.no_grad():
            if dropout_passes == 0:
                return [_output(model, net_input, source) for model in self.models]
            return [
                output
                for number, model in enumerate(self.models)
                for output in _dropout_outputs(model, net_input, source, dropout_passes, seed + number)
            ]

    @property
    def dropout(self) -> float:
        """The largest probability of dropout in any of them."""
        modules = [module for model in self.models for module in model.modules()]
        return max((module.p for module in modules if isinstance(module, FairseqDropout)), default=0.0)

    def run(self, sample: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
        """Only the layers, for who listens to them: no output layer."""
        self._follow(sample, dtype)
        with torch.no_grad():
            for model in self.models:
                model(**sample["net_input"], features_only=True)

    def _follow(self, sample: dict[str, Any], dtype: torch.dtype) -> None:
        device = sample["net_input"]["src_tokens"].device
        self.models = [model.to(device=device, dtype=dtype) for model in self.models]


def _output(model: BaseFairseqModel, net_input: dict[str, Any], source: str) -> Output:
    if why_no_output_matrix(model) is not None:
        return student_output(model, net_input, "logits")
    output = projected(model, net_input)
    return F.linear(*output) if source == "logits" else output


def _dropout_outputs(
    model: BaseFairseqModel, net_input: dict[str, Any], source: str, passes: int, seed: int
) -> list[Output]:
    device = net_input["src_tokens"].device
    dropping = dropout_modules(model)
    try:
        for module in dropping:
            module.training = True
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            return [_output(model, net_input, source) for _ in range(passes)]
    finally:
        for module in dropping:
            module.training = False


def dropout_modules(model: nn.Module) -> list[nn.Module]:
    """What drops values in train mode; nothing else is switched, so that a compressed teacher stays as compressed.

    fairseq's attention looks at itself, not at its dropout.
    """
    return [module for module in model.modules() if isinstance(module, (FairseqDropout, MultiheadAttention))]


def _build(path: str, state: dict[str, Any], cfg: Any, task: FairseqTask) -> BaseFairseqModel:
    model = build_model(path, state, cfg, task.source_dictionary, task.target_dictionary)
    # The input of a plain output matrix is contiguous already, and a hook would make it one that is not plain.
    plain = model.decoder.output_projection if why_no_output_matrix(model) is None else None
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not plain:
            module.register_forward_pre_hook(contiguous_inputs)
    return model.eval().requires_grad_(False)
