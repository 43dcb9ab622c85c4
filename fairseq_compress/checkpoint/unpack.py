"""A packed checkpoint as the dictionary that fairseq loads."""

import os
from typing import Any

from fairseq_compress.checkpoint.packed_file import read_packed, unpacked_weights
from fairseq_compress.checkpoint.state import without_training_state
from fairseq_compress.weights.configuration import plan_of, set_plan
from fairseq_compress.weights.rules import Plan


def unpacked_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A packed checkpoint as what fairseq reads of one: dense weights, which are compressed no more.

    What remains of its plan are the activations.
    """
    model = read_packed(path)
    plan = plan_of(model.cfg["model"])
    if plan is not None:
        set_plan(model.cfg["model"], Plan((), plan.activations))
    state = {"args": None, "cfg": model.cfg, "model": unpacked_weights(path, model), "task_state": {}}
    return without_training_state(state)
