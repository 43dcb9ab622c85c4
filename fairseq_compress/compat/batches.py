"""Fix of fairseq's ``batch_by_size``."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from fairseq.data import data_utils

from fairseq_compress.compat.replacing import is_replaced, replace


def patch_batch_by_size() -> None:
    """Give back the last batch that ``fairseq.data.data_utils.batch_by_size`` drops.

    fairseq cuts the ordered ``indices`` into consecutive batches; what is missing from the result is therefore
    always its tail, and that tail was one batch within all limits.
    """
    original = data_utils.batch_by_size
    if is_replaced(original):
        return

    @functools.wraps(original)
    def batch_by_size(indices: Any, *args: Any, **kwargs: Any) -> Sequence[np.ndarray]:
        if not isinstance(indices, np.ndarray):
            indices = np.fromiter(indices, dtype=np.int64, count=-1)
        if len(indices) == 0:  # fairseq would raise IndexError
            return []
        batches = original(indices, *args, **kwargs)
        kept = sum(len(batch) for batch in batches)
        return batches if kept == len(indices) else [*batches, indices[kept:]]

    replace(data_utils, "batch_by_size", original, batch_by_size)
