"""fairseq-compress: distil and compress fairseq translation models.

Importing the package is cheap: it needs neither torch nor fairseq. When fairseq is imported, before or after this
package, its tasks, criterions and models are registered and known faults of fairseq are fixed; ``--user-dir`` does the
same. Code that imports a module of this package which needs fairseq, such as :mod:`fairseq_compress.criterions`, before
it imports fairseq must call :func:`register`.

The Python API is :class:`Translator`, :func:`load`, :func:`quantize`, and the losses of
:mod:`fairseq_compress.functional` (docs/api.md).
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from fairseq_compress import functional
    from fairseq_compress.api import Hypothesis, LoadedModel, Segmentation, Translator, load, quantize

_OF_API = ("Hypothesis", "LoadedModel", "Segmentation", "Translator", "load", "quantize")
__all__ = [
    "Hypothesis", "LoadedModel", "Segmentation", "Translator", "__version__", "functional", "load", "quantize",
    "register",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import the Python API on first use."""
    if name in _OF_API:
        return getattr(importlib.import_module("fairseq_compress.api"), name)
    if name == "functional":
        return importlib.import_module("fairseq_compress.functional")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def register() -> None:
    """Register all tasks, criterions and models, and fix fairseq (:mod:`fairseq_compress.compat`). Idempotent."""
    from fairseq_compress import compat

    compat.apply()
    from fairseq_compress.checkpoint.load import unpacked_state
    from fairseq_compress.checkpoint.packed_file import is_packed
    from fairseq_compress.corpus.dictionary_file import read_entries
    from fairseq_compress.decoding.repeated_ngrams import repeating_tokens

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


class _AfterFairseq:  # a MetaPathFinder by its method; to import importlib.abc takes 6 ms
    """Import hook that calls :func:`register` after fairseq was imported."""

    _asks = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "fairseq" or self._asks:
            return None
        self._asks = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asks = False
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            if not _is_importing():
                register()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _is_importing() -> bool:
    """Whether a module of this package is still being imported; its importer calls :func:`register`."""
    ours = [module for name, module in sys.modules.items() if name.startswith("fairseq_compress.")]
    return any(getattr(module.__spec__, "_initializing", False) for module in ours)


if "fairseq" in sys.modules:
    register()
else:
    sys.meta_path.insert(0, _AfterFairseq())
