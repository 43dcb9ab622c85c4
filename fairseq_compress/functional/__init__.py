"""Tensor functions: tensors in, tensors out, without fairseq.

The names below are the public losses of docs/api.md; they keep their place when modules are rearranged.
"""

from fairseq_compress.functional.losses.divergences import Divergence
from fairseq_compress.functional.losses.label_smoothed import LabelSmoothedLoss, label_smoothed_loss
from fairseq_compress.functional.losses.layer_losses import cosine_loss, feature_loss, mean_loss, variance_loss
from fairseq_compress.functional.losses.outputs import Projected, TopK
from fairseq_compress.functional.losses.word_kd import word_kd_loss, word_log_probs
from fairseq_compress.functional.losses.word_level_kd import WordLevelKDLoss, word_level_kd_loss

__all__ = [
    "Divergence",
    "LabelSmoothedLoss",
    "Projected",
    "TopK",
    "WordLevelKDLoss",
    "cosine_loss",
    "feature_loss",
    "label_smoothed_loss",
    "mean_loss",
    "variance_loss",
    "word_kd_loss",
    "word_level_kd_loss",
    "word_log_probs",
]
