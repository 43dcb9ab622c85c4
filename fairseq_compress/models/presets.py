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
``transformer_student_deep``              12 + 1  512, 2048   8      58,416,640
``transformer_student_tiny_ssru``         6 + 2   256, 1536   8      16,875,008
``transformer_student_base_memory_ssru``  6 + 4   384, 1536   8      31,216,896
``transformer_student_base_ssru``         6 + 2   512, 2048   8      42,654,720
``NAME_bergamot`` of each of the seven    as NAME, with an output bias of V numbers
``transformer_bottleneck``                12 + 2  512, 512    4      16,676,352
``transformer_inverted_bottleneck``       12 + 2  512, 4096   4      201,994,240
========================================  ======  ==========  =====  ========================

Those with ``ssru`` have that recurrent unit in place of the decoder's self-attention, as the students of Bergamot and
Firefox Translations. Those with ``bergamot`` follow the conventions of Marian, so that ``export --runtime bergamot``
can write what they compute: positions from 0, a zero vector as the decoder's first input, an output bias, layer norms
with an epsilon of 1e-6. ``transformer_bottleneck`` has MobileBERT's blocks (arXiv:2004.02984): embeddings of 128 with a
convolution over three tokens, 128 wide inside of layers with four feed-forward networks, no layer norm;
``transformer_inverted_bottleneck`` is its teacher, 1,024 wide inside.

V counts every entry of the joined dictionary. Source, target and output embeddings are one table, counted once.
``compressed_transformer`` itself is an architecture too, with the values of fairseq's ``transformer`` (6 + 6 layers,
512, 2048, 8 heads, embeddings not shared).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fairseq.models import register_model_architecture
from fairseq.models.transformer import base_architecture

from fairseq_compress.architecture.configuration import resolve
from fairseq_compress.architecture.flags import FLAGS, KEY
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
    structure: Mapping[str, Any] = field(default_factory=dict)  # options of our own (architecture/flags.py)

    def apply(self, args: Any) -> None:
        """Set in ``args`` (a namespace or an omegaconf node) what it lacks: what the user gave stays.

        As in fairseq, the decoder follows the widths of the encoder unless they are given. A given ``--architecture``
        replaces the whole shape.
        """
        resolve(args)
        values = {
            "encoder_layers": self.encoder_layers,
            "decoder_layers": self.decoder_layers,
            "encoder_embed_dim": self.embed_dim,
            "encoder_ffn_embed_dim": self.ffn_embed_dim,
            "encoder_attention_heads": self.attention_heads,
            "decoder_attention_heads": self.attention_heads,
            "share_all_embeddings": self.share_all_embeddings,
            **self.structure,
        }
        whole = getattr(args, KEY, None)
        for name, value in values.items():
            if not hasattr(args, name) and not (whole and name in FLAGS):
                setattr(args, name, value)
        base_architecture(args)


# Small enough to train on two CPU cores in less than an hour, as a teacher on a corpus of some 10,000 sentences.
_SMALL = Preset(encoder_layers=3, decoder_layers=3, embed_dim=256, ffn_embed_dim=1024, attention_heads=4)

# A deep encoder and a shallow decoder (Kasai et al., arXiv:2006.10369), in the shapes of the students of the
# Bergamot project and Firefox Translations, which have the SSRU too: the published tiny counts 16.9 million parameters.
_STUDENT_TINY = replace(_SMALL, encoder_layers=6, decoder_layers=2, ffn_embed_dim=1536, attention_heads=8)
_STUDENT_BASE_MEMORY = replace(_STUDENT_TINY, decoder_layers=4, embed_dim=384)
_STUDENT_BASE = replace(_STUDENT_TINY, embed_dim=512, ffn_embed_dim=2048)
_STUDENT_DEEP = replace(_STUDENT_BASE, encoder_layers=12, decoder_layers=1)
_SSRU = {"decoder_self_attention": "ssru"}
_BERGAMOT = {"decoder_start": "zero", "first_position": 0, "norm_eps": 1e-6, "output_bias": True}
_INVERTED_BOTTLENECK = Preset(
    12, 2, embed_dim=512, ffn_embed_dim=4096, attention_heads=4,
    structure={"bottleneck_width": 1024, "activation_fn": "gelu", "embedding_rank": 128, "embedding_convolution": 3},
)  # fmt: skip
_BOTTLENECK = replace(
    _INVERTED_BOTTLENECK,
    ffn_embed_dim=512,
    structure={
        "bottleneck_width": 128, "ffn_stack": 4, "bottleneck_norm": "elementwise", "embedding_rank": 128,
        "embedding_convolution": 3,
    },
)  # fmt: skip

PRESETS = {
    "transformer_small": _SMALL,
    "transformer_student_tiny": _STUDENT_TINY,
    "transformer_student_base_memory": _STUDENT_BASE_MEMORY,
    "transformer_student_base": _STUDENT_BASE,
    "transformer_student_deep": _STUDENT_DEEP,
    "transformer_student_tiny_ssru": replace(_STUDENT_TINY, structure=_SSRU),
    "transformer_student_base_memory_ssru": replace(_STUDENT_BASE_MEMORY, structure=_SSRU),
    "transformer_student_base_ssru": replace(_STUDENT_BASE, structure=_SSRU),
    "transformer_bottleneck": _BOTTLENECK,
    "transformer_inverted_bottleneck": _INVERTED_BOTTLENECK,
}
PRESETS |= {
    f"{name}_bergamot": replace(preset, structure={**preset.structure, **_BERGAMOT})
    for name, preset in PRESETS.items()
    if name.startswith("transformer_student_")
}


def _base(args: Any) -> None:
    """fairseq's ``transformer``, or the shape of ``--architecture``."""
    resolve(args)
    base_architecture(args)


register_model_architecture(MODEL_NAME, MODEL_NAME)(_base)
for _name, _preset in PRESETS.items():
    register_model_architecture(MODEL_NAME, _name)(_preset.apply)
