"""The registered model and its architectures. Importing this package registers them with fairseq."""

from fairseq_compress.models import compressed_transformer, presets

__all__ = ["compressed_transformer", "presets"]
