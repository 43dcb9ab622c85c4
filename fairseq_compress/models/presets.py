"""Architecture presets: ``--arch NAME``, or ``model._name: NAME`` under hydra.

Every value can be overridden on the command line (``--arch transformer_student_tiny --decoder-layers 1``).
A preset starts from its parent and changes what differs. Layers are post-norm, as in arXiv:1706.03762.

========================================  ======  ==========  =====  ========================
name                                      layers  width, FFN  heads  parameters at V = 32,000
========================================  ======  ==========  =====  ========================
``transformer_small``                     3 + 3   256, 1024   4      13,721,600
``transformer_student_tiny``              6 + 2   256, 1536   8      17,138,688
``transformer_student_base_memory``       6 + 4   384, 1536   8      32,401,152
``transformer_student_base``              6 + 2   512, 2048   8      43,706,368
========================================  ======  ==========  =====  ========================

V counts every entry of the joined dictionary. Source, target and output embeddings are one table, counted once.
``compressed_transformer`` itself is an architecture too, with the values of fairseq's ``transformer`` (6 + 6 layers,
512, 2048, 8 heads, embeddings not shared).
"""

from dataclasses import dataclass, replace
from typing import Any

from fairseq.models import register_model_architecture
from fairseq.models.transformer import base_architecture

from fairseq_compress.models.compressed_transformer import MODEL_NAME


@dataclass(frozen=True)
class Preset:
    """The values in which our architectures differ; all others are fairseq's defaults."""

    encoder_layers: int
    decoder_layers: int
    embed_dim: int  # width of encoder and decoder
    ffn_embed_dim: int  # inner width of the feed-forward networks of encoder and decoder
    attention_heads: int  # of every attention, in encoder and decoder
    share_all_embeddings: bool = True  # source, target and output table are one

    def apply(self, args: Any) -> None:
        """Set in ``args`` (a namespace or an omegaconf node) what it lacks: what the user gave stays.

        As in fairseq, the decoder follows the widths of the encoder unless they are given.
        """
        values = {
            "encoder_layers": self.encoder_layers,
            "decoder_layers": self.decoder_layers,
            "encoder_embed_dim": self.embed_dim,
            "encoder_ffn_embed_dim": self.ffn_embed_dim,
            "encoder_attention_heads": self.attention_heads,
            "decoder_attention_heads": self.attention_heads,
            "share_all_embeddings": self.share_all_embeddings,
        }
        for name, value in values.items():
            if not hasattr(args, name):
                setattr(args, name, value)
        base_architecture(args)


# Small enough to train on two CPU cores in less than an hour, as a teacher on a corpus of some 10,000 sentences.
_SMALL = Preset(encoder_layers=3, decoder_layers=3, embed_dim=256, ffn_embed_dim=1024, attention_heads=4)

# A deep encoder and a shallow decoder (Kasai et al., arXiv:2006.10369), in the shapes of the students of the
# Bergamot project and Firefox Translations. Those have an SSRU in place of the decoder's self-attention, so
# the published tiny counts 16.9 million parameters with a vocabulary of 32,000, where ours has 17.1.
_STUDENT_TINY = replace(_SMALL, encoder_layers=6, decoder_layers=2, ffn_embed_dim=1536, attention_heads=8)
_STUDENT_BASE_MEMORY = replace(_STUDENT_TINY, decoder_layers=4, embed_dim=384)
_STUDENT_BASE = replace(_STUDENT_TINY, embed_dim=512, ffn_embed_dim=2048)

PRESETS = {
    "transformer_small": _SMALL,
    "transformer_student_tiny": _STUDENT_TINY,
    "transformer_student_base_memory": _STUDENT_BASE_MEMORY,
    "transformer_student_base": _STUDENT_BASE,
}

register_model_architecture(MODEL_NAME, MODEL_NAME)(base_architecture)
for _name, _preset in PRESETS.items():
    register_model_architecture(MODEL_NAME, _name)(_preset.apply)
