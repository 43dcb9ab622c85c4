"""What Firefox's engine (``fxtranslate`` 0.5.0) computes with a model of Marian, in numpy, integer for integer.

Found by experiments with random weights (``tests/integration/test_bergamot.py`` compares them):

- Activations are quantized with a constant multiplier a: q = clip(round(a · x), -127, 127), rounded half to even. The
  product is that of q + 127 (unsigned) with the integers of the weight; two neighbours are added in 16 bits, which
  saturates, as AVX2 does; the rest in 32 bits. Then y = sum / (a · m) + b.
- Embeddings are q / m · √C. Positions start at 0. The first input of the decoder is a zero vector plus position 0.
- Layer norms follow each residual sum, with an epsilon of 1e-6; softmax, gate and state of the SSRU are in float32.
- Decoding is greedy, with at most min(2 S + 4, 256) tokens for S source tokens, EOS counted. ``<unk>`` is not
  suppressed. With a shortlist the output is chosen among the first N entries, the candidates of the source tokens, with
  one vocabulary these tokens themselves, and the next free entries up to a multiple of 8.

Shapes: S source tokens, C width, K inputs and N outputs of a layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.decoding.sinusoids import sinusoids
from fairseq_compress.work.marian_file import Quantized, Value

EPSILON = np.float32(1e-6)
MOST_TOKENS = 256
EOS = 0
Floats = NDArray[np.float32]
_EXACT = 1 << 24  # integers up to here are exact in float32


def greatest_length(source_tokens: int) -> int:
    """Tokens of a translation, EOS counted, for a source of S tokens, EOS counted."""
    return min(2 * source_tokens + 4, MOST_TOKENS)


class Product:
    """A layer y = x W + b on 8-bit integers; W is (K, N)."""

    def __init__(self, weight: Quantized, alpha: float, bias: Floats | None) -> None:
        integers = weight.integers.astype(np.int32)
        self._alpha = np.float32(alpha)
        self._scale = np.float32(1) / (self._alpha * np.float32(weight.multiplier))
        kind = np.float32 if 254 * 127 * len(integers) < _EXACT else np.float64
        self._weight = integers.astype(kind)
        shift = (-127 * integers.sum(0)).astype(np.float32) * self._scale
        self._bias = shift if bias is None else (bias.reshape(-1) + shift).astype(np.float32)
        self._saturating = _saturating_pairs(integers)

    def __call__(self, x: Floats) -> Floats:
        unsigned = (np.clip(np.rint(x * self._alpha), -127, 127) + 127).astype(self._weight.dtype)
        sums = unsigned @ self._weight
        row, column, first, second = self._saturating
        if len(row):
            pairs = unsigned[:, 2 * row] * first + unsigned[:, 2 * row + 1] * second
            excess = pairs - np.clip(pairs, -32768, 32767)
            for line in np.flatnonzero(excess.any(1)):
                np.subtract.at(sums[line], column, excess[line])
        return (sums.astype(np.float32) * self._scale + self._bias).astype(np.float32)


def _saturating_pairs(integers: NDArray[np.int32]) -> tuple[NDArray[Any], ...]:
    """Pairs of rows, and columns, whose sum of two products may leave 16 bits; and the two weights."""
    first, second = integers[0::2], integers[1::2]
    first = first[: len(second)]
    high = 254 * (np.maximum(first, 0) + np.maximum(second, 0)) > 32767
    low = 254 * (np.minimum(first, 0) + np.minimum(second, 0)) < -32768
    row, column = np.nonzero(high | low)
    return row, column, first[row, column], second[row, column]


@dataclass
class Shortlist:
    """Candidates of each source token (:mod:`fairseq_compress.runtimes.bergamot.shortlist`)."""

    first: int
    candidates: Sequence[NDArray[Any]]
    shared: bool = True
    """Both sides have one vocabulary: source tokens may be copied."""

    def of(self, source: Sequence[int]) -> NDArray[np.int64]:
        """The entries among which the translation of a sentence is chosen, in their order."""
        copied = source if self.shared else ()
        chosen = {*range(self.first), *copied, *(int(each) for token in source for each in self.candidates[token])}
        entry = self.first
        while len(chosen) % 8 and entry < len(self.candidates):
            chosen.add(entry)
            entry += 1
        return np.array(sorted(chosen))


@dataclass
class Simulation:
    """A model of Marian with 8-bit weights and alphas: SSRU or self-attention in the decoder."""

    items: Mapping[str, Value]
    heads: int
    layers: tuple[int, int]
    """Of encoder and decoder."""
    shortlist: Shortlist | None = None
    _products: dict[tuple[str, ...], Product] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tables = [self._table(f"{side}_Wemb" if f"{side}_Wemb" in self.items else "Wemb") for side in SIDES]
        self._width = self._tables[0].integers.shape[1]
        self._recurrent = "decoder_l1_rnn_W" in self.items

    def translate(self, source: Sequence[int]) -> list[int]:
        """Greedy decoding of token ids, EOS included; the result is without EOS."""
        encoded = self._encode(source)
        keys = [self._keys(f"decoder_l{layer}_context", encoded) for layer in self._range(1)]
        state: list[Any] = [None] * len(keys)
        allowed = None if self.shortlist is None else self.shortlist.of(source)
        output = self._output()
        found: list[int] = []
        for step in range(greatest_length(len(source))):
            x = np.zeros((1, self._width), np.float32) if not found else self._embed(1, found[-1:])
            x = self._decode(x + sinusoids(1, self._width, step), keys, state)
            logits = output(x)[0]
            best = int(logits.argmax() if allowed is None else allowed[logits[allowed].argmax()])
            if best == EOS:
                break
            found.append(best)
        return found

    def _table(self, name: str) -> Quantized:
        table = self.items[name]
        assert isinstance(table, Quantized)
        return table

    def _range(self, side: int) -> range:
        return range(1, self.layers[side] + 1)

    def _embed(self, side: int, tokens: Sequence[int]) -> Floats:
        table = self._tables[side]
        scale = np.float32(1) / np.float32(table.multiplier)
        return table.integers[list(tokens)].astype(np.float32) * scale * np.float32(self._width**0.5)

    def _linear(self, x: Floats, weight: str, bias: str = "") -> Floats:
        if (key := (weight, bias)) not in self._products:
            alpha: Any = self.items[f"{weight}_QuantMultA"]
            offset: Any = self.items[bias] if bias else None
            self._products[key] = Product(self._table(weight), float(alpha.reshape(-1)[0]), offset)
        return self._products[key](x)

    def _output(self) -> Product:
        if (key := ("output",)) not in self._products:
            alpha: Any = self.items["none_QuantMultA"]
            bias: Any = self.items.get("decoder_ff_logit_out_b")
            table = Quantized(self._tables[1].integers.T, self._tables[1].multiplier)
            self._products[key] = Product(table, float(alpha.reshape(-1)[0]), bias)
        return self._products[key]

    def _norm(self, x: Floats, name: str) -> Floats:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        scale, bias = (np.asarray(self.items[f"{name}_ln_{part}"]).reshape(-1) for part in ("scale", "bias"))
        return (centred / np.sqrt(variance + EPSILON) * scale + bias).astype(np.float32)

    def _keys(self, name: str, x: Floats) -> tuple[Floats, Floats]:
        keys, values = (self._linear(x, f"{name}_W{part}", f"{name}_b{part}") for part in "kv")
        return keys, values

    def _attend(self, x: Floats, name: str, keys: Floats, values: Floats) -> Floats:
        """Attention and its residual sum and norm."""
        query = self._linear(x, f"{name}_Wq", f"{name}_bq")
        q, k, v = (part.reshape(len(part), self.heads, -1).swapaxes(0, 1) for part in (query, keys, values))
        scores = q @ k.swapaxes(1, 2) / np.float32(q.shape[-1] ** 0.5)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (weights / weights.sum(-1, keepdims=True)) @ v
        joined = np.ascontiguousarray(attended.swapaxes(0, 1)).reshape(len(x), -1).astype(np.float32)
        return self._norm(x + self._linear(joined, f"{name}_Wo", f"{name}_bo"), f"{name}_Wo")

    def _feed_forward(self, x: Floats, layer: str) -> Floats:
        inner = np.maximum(self._linear(x, f"{layer}_ffn_W1", f"{layer}_ffn_b1"), 0)
        return self._norm(x + self._linear(inner, f"{layer}_ffn_W2", f"{layer}_ffn_b2"), f"{layer}_ffn_ffn")

    def _encode(self, source: Sequence[int]) -> Floats:
        x = self._embed(0, source) + sinusoids(len(source), self._width, 0)
        for number in self._range(0):
            layer = f"encoder_l{number}"
            x = self._attend(x, f"{layer}_self", *self._keys(f"{layer}_self", x))
            x = self._feed_forward(x, layer)
        return x

    def _decode(self, x: Floats, keys: Sequence[tuple[Floats, Floats]], state: list[Any]) -> Floats:
        for number in self._range(1):
            layer, place = f"decoder_l{number}", number - 1
            if self._recurrent:
                forget = 1 / (1 + np.exp(-self._linear(x, f"{layer}_rnn_Wf", f"{layer}_rnn_bf")))
                before = np.float32(0) if state[place] is None else state[place]
                new = forget * before + (1 - forget) * self._linear(x, f"{layer}_rnn_W")
                state[place] = new.astype(np.float32)
                x = self._norm(x + np.maximum(state[place], 0), f"{layer}_rnn_ffn")
            else:
                own = self._keys(f"{layer}_self", x)
                if state[place] is not None:
                    own = (np.concatenate([state[place][0], own[0]]), np.concatenate([state[place][1], own[1]]))
                state[place] = own
                x = self._attend(x, f"{layer}_self", *own)
            x = self._attend(x, f"{layer}_context", *keys[place])
            x = self._feed_forward(x, layer)
        return x


SIDES = ("encoder", "decoder")
