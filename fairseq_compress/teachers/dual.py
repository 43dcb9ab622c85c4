"""The teacher of dual-vocabulary training: new, of a given architecture, or a trained one with a larger table."""

import argparse
import json
from pathlib import Path
from typing import Any

from fairseq import models
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.models.transformer import TransformerModelBase
from omegaconf import DictConfig, OmegaConf

from fairseq_compress.architecture.flags import FLAGS
from fairseq_compress.checkpoint.extract_student import TEACHER_OPTIONS
from fairseq_compress.checkpoint.load import load_upgraded
from fairseq_compress.corpus.dual_text import DualTextManifest
from fairseq_compress.corpus.segmentation.sentencepiece_model import piece_segmenter
from fairseq_compress.errors import ConfigError
from fairseq_compress.surgery.extend_vocabulary import extend_vocabulary
from fairseq_compress.teachers.agreement import Entries, why_no_teacher
from fairseq_compress.weights.reading import plan_of, set_options
from fairseq_compress.work.files import file_sha256

# Options of a transformer that no architecture sets.
KNOWN = FLAGS | {"max_source_positions", "max_target_positions"}


def read_options(architecture: str, text: str | None) -> dict[str, Any]:
    """The configuration of a new teacher: an architecture, and a JSON object of options that override it."""
    if architecture not in ARCH_CONFIG_REGISTRY:
        raise ConfigError(f"--dual-teacher-arch: must be an architecture known here, got {architecture!r}")
    try:
        options = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"--dual-teacher-options: must be a table of JSON, got {text!r} ({error})") from None
    if not isinstance(options, dict):
        raise ConfigError(f"--dual-teacher-options: must be a table of JSON, got {text!r}")
    options = {str(name).replace("-", "_"): value for name, value in options.items()}
    known = argparse.Namespace()
    ARCH_CONFIG_REGISTRY[architecture](known)
    unknown = sorted(set(options) - set(vars(known)) - KNOWN)
    if unknown:
        raise ConfigError(f"--dual-teacher-options: must be options of {architecture}, got {', '.join(unknown)}")
    return {"arch": architecture, **options}


def new_teacher(options: dict[str, Any], union: Dictionary) -> TransformerModelBase:
    """A transformer over the union of both dictionaries."""
    kind = ARCH_MODEL_REGISTRY.get(options["arch"])
    if kind is None or not issubclass(kind, TransformerModelBase):
        raise ConfigError(f"teacher: must be of an architecture of transformers, got {options['arch']}")
    args = argparse.Namespace(**options)
    ARCH_CONFIG_REGISTRY[options["arch"]](args)
    task = argparse.Namespace(source_dictionary=union, target_dictionary=union)
    model: TransformerModelBase = models.build_model(args, task)
    return model


def trained_teacher(task: Any, folder: Path, union: Dictionary) -> tuple[dict[str, Any], TransformerModelBase]:
    """Configuration and model of ``--dual-teacher-path``, with the embeddings extended to the union.

    Args:
        task: with the options of ``dual_vocab_translation``.
        folder: of ``encode-dual``.
    """
    path, sentencepiece_model = task.cfg.dual_teacher_path, task.cfg.dual_teacher_model
    if not Path(sentencepiece_model).is_file() or (
        file_sha256(sentencepiece_model) != DualTextManifest.of(folder).models["teacher"]
    ):
        raise ConfigError(
            f"--dual-teacher-model: must be the teacher's model that {folder} was made with, got {sentencepiece_model}"
        )
    state, cfg = load_upgraded(path)
    dictionary = Dictionary.load(str(folder / "dict.teacher.txt"))
    entries = (Entries.of(dictionary), Entries.of(dictionary))
    problems = why_no_teacher(
        "--dual-teacher-path", path, cfg, task, task.cfg.dual_teacher_data, "--dual-teacher-data", entries, False
    )
    if plan_of(cfg.model) is not None:
        problems.append(f"--dual-teacher-path {path}: must be a plain model, got a compressed one (materialize it)")
    if problems:
        raise ConfigError("; ".join(problems))
    options = _plain(cfg.model)
    weights = extend_vocabulary(state["model"], union, dictionary, piece_segmenter(sentencepiece_model))
    model = new_teacher(options, union)
    model.load_state_dict(weights, strict=True)
    return options, model


def set_teacher(cfg: Any, options: dict[str, Any]) -> None:
    """Store a teacher's configuration in that of its student."""
    set_options(cfg, {TEACHER_OPTIONS: json.dumps(options)})


def teacher_options(cfg: Any) -> dict[str, Any]:
    """The teacher's configuration, stored in that of a student."""
    text = getattr(cfg, TEACHER_OPTIONS, None)
    if not text:
        raise ConfigError(
            "model: must have been trained with the task dual_vocab_translation, got no teacher's options"
        )
    options: dict[str, Any] = json.loads(text)
    return options


def _plain(model: Any) -> dict[str, Any]:
    """The scalar options of a model in a checkpoint."""
    values: Any = OmegaConf.to_container(model) if isinstance(model, DictConfig) else vars(model)
    found: dict[str, Any] = {name: value for name, value in values.items() if isinstance(value, (str, int, float))}
    name = found.pop("_name", None)
    return found | {"arch": name or found.get("arch")}
