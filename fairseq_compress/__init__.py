"""fairseq-compress: distil and compress fairseq translation models.

Importing the package is cheap. It registers its tasks, criterions and models with fairseq, and mends what is
broken in fairseq, only when fairseq is in the process already; that is so under ``--user-dir``, where fairseq does
the importing. The verbs of ``fairseq-compress`` that need neither fairseq nor torch never load them.

The Python API (docs/api.md): :class:`Translator`, :func:`load`, :func:`quantize`, and the losses of
:mod:`fairseq_compress.functional`.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from fairseq_compress import functional
    from fairseq_compress.api import Hypothesis, LoadedModel, Translator, load, quantize

_OF_API = ("Hypothesis", "LoadedModel", "Translator", "load", "quantize")
__all__ = ["Hypothesis", "LoadedModel", "Translator", "__version__", "functional", "load", "quantize", "register"]


def __getattr__(name: str) -> Any:
    """Import the API when it is first asked for."""
    if name in _OF_API:
        return getattr(importlib.import_module("fairseq_compress.api"), name)
    if name == "functional":
        return importlib.import_module("fairseq_compress.functional")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def register() -> None:
    """Mend fairseq (:mod:`fairseq_compress.compat`) and register every task, criterion and model. Idempotent."""
    from fairseq_compress import compat

    compat.apply()
    from fairseq_compress.checkpoint.packed_file import is_packed
    from fairseq_compress.checkpoint.unpack import unpacked_state
    from fairseq_compress.corpus.dictionary_file import read_entries
    from fairseq_compress.inference.repeated_ngrams import repeating_tokens

    compat.read_checkpoints_also(is_packed, unpacked_state)
    compat.patch_ngram_blocking(repeating_tokens)
    compat.read_dictionaries_with(read_entries)
    import fairseq_compress.criterions.dual_vocab_kd
    import fairseq_compress.criterions.hidden_state_kd
    import fairseq_compress.criterions.label_smoothed
    import fairseq_compress.criterions.sequence_level_kd
    import fairseq_compress.criterions.word_level_kd
    import fairseq_compress.models.compressed_transformer
    import fairseq_compress.models.planned
    import fairseq_compress.tasks.compressed_translation
    import fairseq_compress.tasks.dual_vocab_translation  # noqa: F401


if "fairseq" in sys.modules:
    register()
