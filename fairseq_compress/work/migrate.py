"""Manifests of earlier versions, one step at a time; no other module knows what they looked like.

A step takes the content of a manifest and returns that of the following version. A format without a step is refused by
its name where it is read. Steps stay for one version of the package.
"""

from collections.abc import Callable
from typing import Any

Content = dict[str, Any]
SEAL = {"fingerprint", "units", "bytes", "sha256"}
STEPS: dict[str, Callable[[Content], Content]] = {}
"""By the value of ``format``."""


def upgrade(content: Any) -> Any:
    """The content of a manifest in the current version; what is none stays as it is."""
    if not isinstance(content, dict):
        return content
    if content.keys() == SEAL:  # before version 0.2, seals of sharded work named no format
        return {"format": "fairseq-compress work seal 1", **content}
    while (step := STEPS.get(str(content.get("format")))) is not None:
        content = step(content)
    return content
