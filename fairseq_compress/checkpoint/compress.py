"""A trained model, compressed by a plan without training: post-training quantization."""

import os
from typing import Any

from fairseq.models import BaseFairseqModel
from omegaconf import DictConfig

from fairseq_compress.checkpoint.load import build_model, dictionaries_of, load_upgraded, new_model
from fairseq_compress.checkpoint.packed_file import is_packed
from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.activation_quantizer import RANGE
from fairseq_compress.weights.reading import set_plan
from fairseq_compress.weights.rules import Plan


def compressed_model(
    path: str | os.PathLike[str], plan: Plan | None = None
) -> tuple[BaseFairseqModel, dict[str, Any], DictConfig]:
    """The model of a checkpoint, compressed by a plan (default: its own), its state, and its configuration.

    Centroids, assignments, masks and ranges of the checkpoint stay if the plan has them too; all else is computed
    from the master weights.
    """
    state, cfg = _with_plan(path, plan)
    return build_model(path, state, cfg, *dictionaries_of(state["model"])), state, cfg


def check_plan(path: str | os.PathLike[str], plan: Plan) -> None:
    """Raise an error for a plan that does not fit the model of a checkpoint."""
    state, cfg = _with_plan(path, plan)
    new_model(path, cfg, *dictionaries_of(state["model"]))


def _with_plan(path: str | os.PathLike[str], plan: Plan | None) -> tuple[dict[str, Any], DictConfig]:
    if plan is not None and is_packed(path):
        raise ConfigError(f"--plan: the weights of {path} are packed already")
    state, cfg = load_upgraded(path)
    if plan is not None:
        set_plan(cfg.model, plan)
        if not plan.activations:
            state["model"] = {key: value for key, value in state["model"].items() if not key.endswith(RANGE)}
    return state, cfg
