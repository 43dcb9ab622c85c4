"""``config.json`` of transformers: sizes, and what MarianMT and M2M100 may differ in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_compress.architecture.shape import Attention, Layer, Stack
from fairseq_compress.checkpoint.imports.huggingface_vocabulary import Vocabulary
from fairseq_compress.errors import DataError

ACTIVATIONS = {
    "relu": "relu", "swish": "swish", "silu": "swish", "gelu": "gelu", "gelu_new": "gelu_accurate", "tanh": "tanh",
}  # fmt: skip
# Values of MarianMT that transformers does not read, as it computes these only.
MARIAN_ONLY = {
    "static_position_embeddings": True, "normalize_before": False, "normalize_embedding": False,
    "add_final_layer_norm": False, "extra_pos_embeddings": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The values of a file."""

    path: Path
    values: dict[str, Any]

    def choice(self, name: str, known: tuple[Any, ...], default: Any = None) -> Any:
        """A value that must be one of ``known``."""
        value = self.values.get(name, default)
        if value not in known:
            raise DataError(f"{self.path}: {name}: must be one of {', '.join(map(str, known))}, got {value!r}")
        return value

    def number(self, name: str) -> int:
        """A positive whole number."""
        value = self.values.get(name)
        if type(value) is not int or value < 1:
            raise DataError(f"{self.path}: {name}: must be a whole number in [1, inf), got {value!r}")
        return value

    def switch(self, name: str, default: bool) -> bool:
        return bool(self.choice(name, (True, False), default))

    def check_family(self, marian: bool) -> None:
        """Refuse values whose computation is not that of the family."""
        for name, value in MARIAN_ONLY.items() if marian else ():
            self.choice(name, (value,), value)
        self.choice("activation_function", tuple(ACTIVATIONS))

    def check_specials(self, vocabularies: tuple[Vocabulary, Vocabulary], marian: bool) -> None:
        """Compare the numbers of the special tokens with the vocabularies."""
        places = {"pad_token_id": "<pad>", "eos_token_id": "</s>"}
        if not marian:  # whose decoder may start with any token
            places["decoder_start_token_id"] = "</s>"
        for name, symbol in places.items():
            for vocabulary in vocabularies:
                expected, found = vocabulary.place(symbol), self.values.get(name)
                if found is not None and found != expected:
                    raise DataError(
                        f"{self.path}: {name}: must be {expected}, {symbol} in {vocabulary.origin.name}, got {found}"
                    )

    def stacks(self) -> tuple[Stack, Stack]:
        """The shapes of encoder and decoder."""
        encoder, decoder = (self._stack(part) for part in ("encoder", "decoder"))
        return encoder, decoder

    def _stack(self, part: str) -> Stack:
        width, heads = self.number("d_model"), self.number(f"{part}_attention_heads")
        if width % heads:
            raise DataError(f"{self.path}: {part}_attention_heads: must divide d_model ({width}), got {heads}")
        attention = Attention(heads=heads, head_width=width // heads)
        layer = Layer(attention, self.number(f"{part}_ffn_dim"), attention if part == "decoder" else None)
        return Stack(width, (layer,) * self.number(f"{part}_layers"))

    def options(self, marian: bool) -> dict[str, Any]:
        """fairseq's options but for sizes."""
        positions = self.number("max_position_embeddings")
        rates = ("dropout", "attention_dropout", "activation_dropout")
        return {name: float(self.values.get(name) or 0.0) for name in rates} | {
            "activation_fn": ACTIVATIONS[self.values["activation_function"]],
            "no_scale_embedding": not self.switch("scale_embedding", False),
            "max_source_positions": positions,
            "max_target_positions": positions,
            **{f"{part}_normalize_before": not marian for part in ("encoder", "decoder")},
            **{f"{part}_learned_pos": marian for part in ("encoder", "decoder")},
        }
