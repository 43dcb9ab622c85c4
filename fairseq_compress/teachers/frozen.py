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
    """One or several teachers that run on the student's batches, in eval mode with ``requires_grad`` off.

    Deliberately no ``nn.Module``: no parameter of a teacher reaches the optimizer, DDP or a checkpoint.

    Args:
        paths: checkpoints separated by ``:``, as fairseq separates the members of an ensemble.
        task: the student's task, whose languages and dictionaries the teachers must have.
        dictionary_dir: folder of the teachers' ``dict.LANG.txt``, see :func:`find_dictionary`.
        all_lengths: whether they read every sentence of the task.
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
        self, sample: dict[str, Any], dtype: torch.dtype = torch.float32, source: str = "auto", dropout_passes: int = 0,
        seed: int = 0,
    ) -> list[Output]:  # fmt: skip
        """Teacher-forced outputs for a batch of fairseq, one for each teacher.

        Args:
            dtype: of the student's weights; teachers are cast to it, and moved to the batch's device.
            source: of :func:`student_output`: a :class:`Projected` (hidden states (B · T, C) and the output matrix)
                where the teacher supports it, or logits (B · T, V).
            dropout_passes: if positive, outputs of each teacher with dropout (dropout distillation, Bulò et al. 2016).
            seed: alone determines the draws, which leave torch's generators as they were.
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
        """The largest dropout probability."""
        modules = [module for model in self.models for module in model.modules()]
        return max((module.p for module in modules if isinstance(module, FairseqDropout)), default=0.0)

    def run(self, sample: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
        """Run the layers without the output layer, for forward hooks."""
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
    """Modules that drop values in train mode; fairseq's attention reads its own mode, not that of its dropout."""
    return [module for module in model.modules() if isinstance(module, (FairseqDropout, MultiheadAttention))]


def _build(path: str, state: dict[str, Any], cfg: Any, task: FairseqTask) -> BaseFairseqModel:
    model = build_model(path, state, cfg, task.source_dictionary, task.target_dictionary)
    # The input of a plain output matrix is contiguous already, and a hook would make it one that is not plain.
    plain = model.decoder.output_projection if why_no_output_matrix(model) is None else None
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not plain:
            module.register_forward_pre_hook(contiguous_inputs)
    return model.eval().requires_grad_(False)
