"""Initialization of a new student from the weights of a teacher: ``--init-from-teacher`` of the task."""

import logging
from operator import attrgetter
from typing import Any

import torch
from fairseq.models.transformer import TransformerModelBase
from fairseq.tasks import FairseqTask
from torch import nn

from fairseq_compress.checkpoint.load import build_model, dictionaries_of, load_upgraded
from fairseq_compress.errors import ConfigError, FairseqCompressError
from fairseq_compress.functional.layer_map import LayerMap, parse_layer_map
from fairseq_compress.modules.axes import INNER, WINDOW, parameter_axes
from fairseq_compress.surgery.teacher_layers import choose_layers
from fairseq_compress.surgery.teacher_start import initialize_from, size_problems
from fairseq_compress.teachers.agreement import architecture, is_transformer, why_no_teacher

logger = logging.getLogger(__name__)

# Options that change the function of the same weights: a warning.
MEANINGS = ("encoder.normalize_before", "decoder.normalize_before", "activation_fn", "no_scale_embedding")
NOT_COPIED = {INNER.kind: "--bottleneck-width", WINDOW.kind: "--embedding-convolution"}


def start_from_teacher(student: nn.Module, task: FairseqTask, finetuned: str | None = None) -> frozenset[str]:
    """Load the weights of the task's ``--init-from-teacher``, if given, into a new model; uses no random numbers.

    Args:
        task: the student's, with the options ``init_...``.
        finetuned: the value of ``--finetune-from-model``, where it is known.

    Returns:
        the names of the weights that came from the teacher, of :func:`plain_parameters`.
    """
    path, layers, widths, folder = (
        getattr(task.cfg, f"init_{name}", None) for name in ("from_teacher", "layers", "widths", "teacher_data")
    )
    given, wrong = ({}, []) if layers is None else parse_layer_map(layers)
    problems = [f"--init-layers: {problem}" for problem in wrong]
    if path is None:
        # The default of --init-widths cannot be told from one that was given.
        alone = {"layers": layers, "widths": None if str(widths) == "refuse" else widths, "teacher-data": folder}
        problems += [
            f"--init-{option}: must be given with --init-from-teacher, got {value} alone"
            for option, value in alone.items()
            if value is not None
        ]
        if problems:
            raise ConfigError("; ".join(problems))
        return frozenset()
    if finetuned:
        problems.append(
            f"--init-from-teacher: must not be given with --finetune-from-model, whose weights would replace what it "
            f"copies, got {path} and {finetuned}"
        )
    try:
        state, cfg = load_upgraded(path)
        if not is_transformer(cfg):
            problems.append(
                f"--init-from-teacher {path}: the teacher must be a transformer known here, got the architecture "
                f"{architecture(cfg)}"
            )
        problems += why_no_teacher("--init-from-teacher", path, cfg, task, folder, "--init-teacher-data", None, False)
        teacher = _build(path, state, cfg)
    except FairseqCompressError as error:
        if not problems:
            raise
        raise ConfigError("; ".join([*problems, str(error)])) from None
    chosen, wrong = _choose(student, teacher, given, str(widths))
    if problems or wrong or teacher is None:
        raise ConfigError("; ".join([*problems, *wrong]))
    _warn_of_other_meanings(path, teacher, student)
    return initialize_from(student, teacher, chosen, str(widths), path)


def _build(path: str, state: dict[str, Any], cfg: Any) -> Any:
    """The teacher with placeholder dictionaries; None if it is no transformer."""
    if not is_transformer(cfg):
        return None
    with torch.random.fork_rng(devices=[]):
        return build_model(path, state, cfg, *dictionaries_of(state["model"]))


def _choose(student: Any, teacher: Any, given: LayerMap, widths: str) -> tuple[LayerMap, list[str]]:
    """The layers to copy, and problems of them or of the sizes."""
    if not isinstance(student, TransformerModelBase):
        return {}, [f"--init-from-teacher: the student must be a transformer, got a {type(student).__name__}"]
    if teacher is None:
        return {}, []
    chosen, problems = choose_layers(given, student, teacher)
    kinds = {axis.kind for model in (student, teacher) for axes in parameter_axes(model).values() for axis in axes}
    options = [option for kind, option in NOT_COPIED.items() if kind in kinds]
    if options and (any(chosen.values()) or widths != "refuse"):
        layers = " ".join(f"{part}:{','.join(map(str, numbers)) or 'none'}" for part, numbers in chosen.items())
        return {}, [
            "--init-layers: must be 'encoder:none decoder:none', with --init-widths refuse, for a student or a teacher "
            f"with {options[0]}, whose layers cannot be copied, got {layers} and {widths}"
        ]
    return chosen, problems + size_problems(teacher, student, chosen, widths)


def _warn_of_other_meanings(path: str, teacher: Any, student: Any) -> None:
    for name in MEANINGS:
        old, new = map(attrgetter(name), (teacher.cfg, student.cfg))
        if old != new:
            logger.warning("start from %s: %s is %s in the teacher, %s in the student", path, name, old, new)
