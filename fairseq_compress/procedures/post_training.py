"""Post-training quantization: a checkpoint and a plan -> a checkpoint with that plan, and ranges of activations."""

import copy
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fairseq.tasks import TASK_REGISTRY
from omegaconf import DictConfig, open_dict
from torch import nn

from fairseq_compress.checkpoint.compress import compressed_model
from fairseq_compress.checkpoint.state import plain_cfg, without_training_state, write_state
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.functional.quantization.magnitudes import Magnitudes
from fairseq_compress.modules.activation_quantizer import ActivationQuantizer
from fairseq_compress.options import check, flag, option
from fairseq_compress.weights.rules import Plan
from fairseq_compress.work.files import check_distinct

MAX_TOKENS = 4000


@dataclass(frozen=True)
class Calibration:
    """A sample of sentences, and the percentile of the magnitudes that becomes the range (arXiv:2004.09602)."""

    data: str = option(help="folder of fairseq-preprocess")
    subset: str = option("train", "part of the data")
    sentences: int = option(512, "sentences drawn at random", range="[1, inf)")
    percentile: float = option(99.99, "percentile of the magnitudes of an input that is its range", range="(0, 100]")
    seed: int = option(1, "of the sentences")

    def __post_init__(self) -> None:
        check(self, spelling=lambda name: flag(f"calibration_{name}"))


def calibrate(model: nn.Module, cfg: DictConfig, calibration: Calibration) -> dict[str, float]:
    """Set the ranges of all quantized activations that have none; the model is put into eval mode.

    The model runs teacher-forced, with quantized weights and exact activations. The range of an input is the percentile
    of |x|.

    Args:
        cfg: of the checkpoint, with the task that reads the data.

    Returns:
        the new ranges, by the names of the layers.
    """
    quantizers = {name: module for name, module in model.named_modules() if isinstance(module, ActivationQuantizer)}
    unset = {name: module for name, module in quantizers.items() if module.largest == 0}
    if not unset:
        found = "learned all its ranges in training" if quantizers else "quantizes no activations"
        raise ConfigError(f"--calibration-data: there is nothing to calibrate, as the model {found}")
    batches = _batches(cfg, calibration)
    model.eval()
    for module in unset.values():
        module.watching = Magnitudes()
    try:
        with torch.no_grad():
            for batch in batches:
                model(**batch["net_input"])
    except ValueError as error:
        raise DataError(f"--calibration-data {calibration.data}: the inputs of the layers {error}") from None
    ranges = {}
    for name, module in unset.items():
        if module.watching is not None and module.watching.largest > 0:
            ranges[name.rpartition(".")[0]] = largest = module.watching.percentile(calibration.percentile)
            module.largest.fill_(largest)
        module.watching = None
    return ranges


def _batches(cfg: DictConfig, calibration: Calibration) -> list[Any]:
    own = copy.deepcopy(cfg.task)
    with open_dict(own):
        own.data = calibration.data
    try:
        task = TASK_REGISTRY[own._name].setup_task(own)
        task.load_dataset(calibration.subset)
    except (OSError, AssertionError) as error:
        raise DataError(f"--calibration-data {calibration.data}: cannot be read: {error}") from None
    dataset = task.dataset(calibration.subset)
    drawn = np.random.RandomState(calibration.seed).permutation(len(dataset))[: calibration.sentences]
    by_length = drawn[np.argsort(dataset.num_tokens_vec(drawn), kind="stable")]  # so that there is little padding
    cuts = dataset.batch_by_size(by_length, max_tokens=MAX_TOKENS)
    return [dataset.collater([dataset[index] for index in batch]) for batch in cuts if len(batch)]


def quantize(
    path: str | os.PathLike[str], output: str | os.PathLike[str], plan: Plan, calibration: Calibration | None = None
) -> dict[str, float]:
    """Write a checkpoint compressed by a plan, without optimizer, and return the calibrated ranges by layer.

    Integers keep their master weights for further training; centroids replace the weights. Without a calibration,
    ranges of activations are dynamic.
    """
    check_distinct([path], [output])
    model, state, cfg = compressed_model(path, plan)
    ranges = {} if calibration is None else calibrate(model, cfg, calibration)
    written = without_training_state(state) | {"args": None, "cfg": plain_cfg(cfg), "model": model.state_dict()}
    write_state(written, output)
    return ranges
