"""The teacher whose weights a new student starts from: ``--init-from-teacher`` of the task.

Nothing of it is kept: it is loaded, checked against the student's task, and its weights are copied.
"""

import logging
from typing import Any

import torch
from fairseq.models.transformer import TransformerModelBase
from fairseq.tasks import FairseqTask
from torch import nn

from fairseq_compress.checkpoint.load import build_model, load_upgraded
from fairseq_compress.checkpoint.materialize import dictionaries_of
from fairseq_compress.errors import ConfigError, FairseqCompressError
from fairseq_compress.surgery.plain_parameters import plain_shapes
from fairseq_compress.surgery.teacher_layers import Layers, choose_layers, parse_layers
from fairseq_compress.surgery.teacher_start import take_over, why_not_by_size
from fairseq_compress.surgery.transformer_axes import axis_sizes
from fairseq_compress.teachers.agreement import architecture, is_transformer, why_no_teacher

logger = logging.getLogger(__name__)

# Options that give the same weights another meaning: a start across them is allowed, but worth less.
MEANINGS = ("encoder.normalize_before", "decoder.normalize_before", "activation_fn", "no_scale_embedding")


def start_from_teacher(student: nn.Module, task: FairseqTask, finetuned: str | None = None) -> frozenset[str]:
    """Load the weights of the task's ``--init-from-teacher`` into a new model; nothing happens without that option.

    Random numbers that follow are those of a training without it.

    Args:
        task: the student's, with the options ``init_...`` in its configuration; its languages and dictionaries rule.
        finetuned: the value of ``--finetune-from-model``, where it is known.

    Returns:
        The names of the weights that came from the teacher, of :func:`plain_parameters`.

    Raises:
        ConfigError: an option breaks its rule, or teacher and student do not fit each other; all in one message.
        CheckpointError: the file is missing, damaged or unsafe.
    """
    path, layers, widths, folder = (
        getattr(task.cfg, f"init_{name}", None) for name in ("from_teacher", "layers", "widths", "teacher_data")
    )
    given, problems = parse_layers(layers)
    if path is None:
        problems += _useless(layers, widths, folder)
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
        problems += _problems(path, cfg, task, folder)
        teacher = _build(path, state, cfg)
    except FairseqCompressError as error:
        if not problems:
            raise
        raise ConfigError("; ".join([*problems, str(error)])) from None
    chosen, wrong = _choose(student, teacher, given, str(widths))
    if problems or wrong or teacher is None:
        raise ConfigError("; ".join([*problems, *wrong]))
    _warn_of_other_meanings(path, teacher, student)
    return take_over(student, teacher, chosen, str(widths), path)


def _choose(student: Any, teacher: Any, given: Layers, widths: str) -> tuple[Layers, list[str]]:
    """The layers to copy, and what is wrong with them or with the sizes; of a teacher that is one."""
    if not isinstance(student, TransformerModelBase):
        return {}, [f"--init-from-teacher: the student must be a transformer, got a {type(student).__name__}"]
    if teacher is None:
        return {}, []
    chosen, problems = choose_layers(given, student, teacher)
    for option in ("bottleneck_width", "embedding_convolution"):
        has_it = any(getattr(model.cfg, option, 0) for model in (student, teacher))
        if has_it and (any(chosen.values()) or widths != "refuse"):
            layers = " ".join(f"{part}:{','.join(map(str, numbers)) or 'none'}" for part, numbers in chosen.items())
            return {}, [
                "--init-layers: must be 'encoder:none decoder:none', with --init-widths refuse, for a student or a "
                f"teacher with --{option.replace('_', '-')}, whose layers cannot be copied, got {layers} and {widths}"
            ]
    theirs, ours = (axis_sizes(model, plain_shapes(model)) for model in (teacher, student))
    return chosen, problems + why_not_by_size(theirs, ours, chosen, widths)


def _useless(layers: str | None, widths: Any, folder: str | None) -> list[str]:
    """Options that say how, without the one that says from what. The widths' default cannot be told from none."""
    given = {"--init-layers": layers, "--init-widths": None if str(widths) == "refuse" else widths}
    given["--init-teacher-data"] = folder
    return [
        f"{option}: must be given with --init-from-teacher, got {value} alone"
        for option, value in given.items()
        if value is not None
    ]


def _problems(path: str, cfg: Any, task: FairseqTask, folder: str | None) -> list[str]:
    """What keeps this checkpoint from being the teacher: its kind of model, its languages, its dictionaries."""
    problems = []
    if not is_transformer(cfg):
        problems.append(
            f"--init-from-teacher {path}: the teacher must be a transformer known here, got the architecture "
            f"{architecture(cfg)}"
        )
    return problems + why_no_teacher("--init-from-teacher", path, cfg, task, folder, "--init-teacher-data", None, False)


def _build(path: str, state: dict[str, Any], cfg: Any) -> TransformerModelBase | None:
    """The teacher, None if it is no transformer.

    Over stand-ins for its dictionaries, so that all that is wrong can be told even if those are.
    """
    if not is_transformer(cfg):
        return None
    with torch.random.fork_rng(devices=[]):
        return build_model(path, state, cfg, *dictionaries_of(state["model"]))


def _warn_of_other_meanings(path: str, teacher: Any, student: Any) -> None:
    for name in MEANINGS:
        theirs, ours = teacher.cfg, student.cfg
        for part in name.split("."):
            theirs, ours = getattr(theirs, part), getattr(ours, part)
        if theirs != ours:
            logger.warning("start from %s: %s is %s in the teacher, %s in the student", path, name, theirs, ours)
