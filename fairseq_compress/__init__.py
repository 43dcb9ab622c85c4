"""fairseq-compress: distil and compress fairseq translation models.

Importing the package is cheap. It registers its tasks, criterions and models with fairseq, and mends what is
broken in fairseq, only when fairseq is in the process already; that is so under ``--user-dir``, where fairseq does
the importing. The verbs of ``fairseq-compress`` that need neither fairseq nor torch never load them.
"""

import sys

__version__ = "0.1.0"


def register() -> None:
    """Mend fairseq (:mod:`fairseq_compress.compat`) and register every task, criterion and model. Idempotent."""
    from fairseq_compress import compat, compat_dictionaries

    compat.apply()
    from fairseq_compress.checkpoint.packed_file import is_packed
    from fairseq_compress.checkpoint.unpack import unpacked_state
    from fairseq_compress.corpus.dictionary_file import read_entries

    compat.read_checkpoints_also(is_packed, unpacked_state)
    compat_dictionaries.read_dictionaries_with(read_entries)
    compat_dictionaries.patch_language_pairs()
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
