"""All glue for versions of fairseq, torch and numpy; nothing of it lives anywhere else.

What is fixed, and why (each was tried with fairseq-fixed 0.12.3.1 and torch 2.13):

* :func:`patch_batch_by_size` - fairseq drops the last batch when its size is no multiple of
  ``--required-batch-size-multiple``: up to seven sentences of every set are never trained on, scored or translated.
* :func:`allow_checkpoint_classes` and :func:`patch_checkpoint_loading` - torch >= 2.6 unpickles with an allow-list.
  We add the exact classes that fairseq writes, read numpy's values ourselves (:mod:`.numpy_values`), and turn every
  refusal into one clear line. Safety stays on. The same list lets several processes load a checkpoint, which fairseq
  sends from the first to the others as a pickle. Checkpoints of weights and configuration alone load, too.
* :func:`patch_checkpoint_copies` - fairseq copies a new checkpoint over ``checkpoint_last.pt`` and
  ``checkpoint_best.pt`` in place: a training that is killed meanwhile leaves half a file, from which nothing resumes.
* :func:`patch_task_state` - fairseq saves the state of a task in every checkpoint and never loads it again.
* :func:`patch_learning_rates` - fairseq has one learning rate for all parameters and one schedule for a training: no
  factors for parts of a model, and no first phase; :func:`reset_optimizer` clears an optimizer after such a phase.
* :func:`read_dictionaries_with` - a damaged ``dict.LANG.txt`` ends fairseq with a traceback that names no line, and a
  byte order mark becomes a part of the first symbol.
* :func:`patch_language_pairs` - fairseq takes ``dict.zh-Hant.txt`` for text of ``zh`` and ``Hant``, and finds no pair
  in ``train.en-zh-Hant.en.idx``.
* :func:`patch_task_languages` - a training without ``-s`` and ``-t`` finds its languages in the folder and does not
  save them, so that nothing can translate with its checkpoint.
* :func:`patch_average_of_weights` - fairseq's EMA (``--store-ema``) fails on integers in a state dict.
* :func:`after_building_models` - fairseq has no place in which to change a model between its making and the making of
  its optimizer, for whatever task builds it.
* :func:`patch_ngram_blocking` - fairseq's ``--no-repeat-ngram-size`` compares with padding and forbids nothing.
* :func:`patch_swish` - fairseq's ``--activation-fn swish`` is a class, which its layers cannot call.
* :func:`install_excepthook` - ``fairseq-train`` reports our own errors as one line, with status 1.
* :func:`patch_missing_architecture` - without ``--arch`` it raises ``RuntimeError()``, which says nothing.
"""

from fairseq_compress.compat.activations import patch_swish
from fairseq_compress.compat.batches import patch_batch_by_size
from fairseq_compress.compat.commands import install_excepthook, patch_missing_architecture
from fairseq_compress.compat.dictionaries import patch_language_pairs, patch_task_languages, read_dictionaries_with
from fairseq_compress.compat.fairseq_options import configured, fairseq_options
from fairseq_compress.compat.generation import patch_ngram_blocking
from fairseq_compress.compat.learning_rates import (
    RATE_GROUP,
    LearningRates,
    patch_learning_rates,
    reset_optimizer,
    set_rate_factors,
)
from fairseq_compress.compat.loading import (
    CHECKPOINT_CLASSES,
    START_OF_DATA,
    allow_checkpoint_classes,
    completed_state,
    guarded_load,
    patch_checkpoint_broadcast,
    patch_checkpoint_loading,
    read_checkpoints_also,
)
from fairseq_compress.compat.training import (
    after_building_models,
    patch_average_of_weights,
    patch_checkpoint_copies,
    patch_task_state,
)

__all__ = [
    "CHECKPOINT_CLASSES",
    "RATE_GROUP",
    "START_OF_DATA",
    "LearningRates",
    "after_building_models",
    "allow_checkpoint_classes",
    "apply",
    "completed_state",
    "configured",
    "fairseq_options",
    "guarded_load",
    "patch_ngram_blocking",
    "read_checkpoints_also",
    "read_dictionaries_with",
    "reset_optimizer",
    "set_rate_factors",
]


def apply() -> None:
    """Apply every fix that needs no other package of ours. Idempotent."""
    allow_checkpoint_classes()
    patch_batch_by_size()
    patch_checkpoint_loading()
    patch_checkpoint_broadcast()
    patch_checkpoint_copies()
    patch_task_state()
    patch_learning_rates()
    patch_average_of_weights()
    patch_swish()
    patch_language_pairs()
    patch_task_languages()
    install_excepthook()
    patch_missing_architecture()
