"""Compression of every model by the plan of its configuration, whatever task builds it."""

from typing import Any

from fairseq_compress import compat
from fairseq_compress.weights.attach import attach_plan, refuse_other_compression
from fairseq_compress.weights.reading import plan_of


def _compress(model: Any, cfg: Any) -> Any:
    plan = plan_of(cfg)
    if plan is not None:
        attach_plan(plan, model)
    model.register_load_state_dict_pre_hook(refuse_other_compression)
    return model


compat.after_building_models(_compress)
