"""Formats of earlier versions, read for one version of the package; no other module knows what they looked like.

A step takes the content of a manifest and returns that of the next version. A format without a step is refused.
"""

from collections.abc import Callable
from typing import Any

Content = dict[str, Any]
SEAL = {"fingerprint", "units", "bytes", "sha256"}
STEPS: dict[str, Callable[[Content], Content]] = {}
"""By the value of ``format``."""
PACKED_PARTS = {"fairseq-compress packed 2": {"scales": "inverse_scales", "scale": "inverse_scale"}}
"""Format of a packed checkpoint -> renamed parts of its weights."""


def upgrade(content: Any) -> Any:
    """The content of a manifest in the current version; anything else is returned unchanged."""
    if not isinstance(content, dict):
        return content
    if content.keys() == SEAL:  # before version 0.2, seals of sharded work named no format
        return {"format": "fairseq-compress work seal 1", **content}
    while (step := STEPS.get(str(content.get("format")))) is not None:
        content = step(content)
    return content
