"""Post-training quantization: a checkpoint and a plan -> a checkpoint with that plan."""

import os

from fairseq_compress.checkpoint.compress import compressed_model
from fairseq_compress.checkpoint.state import plain_cfg, without_training_state, write_state
from fairseq_compress.procedures.calibration import Calibration, calibrate
from fairseq_compress.weights.rules import Plan
from fairseq_compress.work.files import check_distinct


def quantize(
    path: str | os.PathLike[str], output: str | os.PathLike[str], plan: Plan, calibration: Calibration | None = None
) -> dict[str, float]:
    """Write a checkpoint whose model is compressed by a plan, for fairseq's own commands; without optimizer.

    Integers keep their master weights, so that a training can go on from them; centroids take the place of the weights.
    Without a calibration, each input of a layer has its own range where activations are quantized (dynamic).

    Returns:
        The ranges that were calibrated, by the names of the layers.
    """
    check_distinct([path], [output])
    model, state, cfg = compressed_model(path, plan)
    ranges = {} if calibration is None else calibrate(model, cfg, calibration)
    written = without_training_state(state) | {"args": None, "cfg": plain_cfg(cfg), "model": model.state_dict()}
    write_state(written, output)
    return ranges
