"""Tree attention: a fast decoding step for fairseq's transformer decoders.

The hypotheses of a beam are the leaves of a tree, in which each node stores its keys and values once. A hypothesis
attends to the nodes on its path through a mask, so that reordering the beam copies nothing, while fairseq copies the
keys and values of every hypothesis in each step. Every few steps unreachable nodes are dropped. Keys and values of the
source are shared by the hypotheses of a sentence. The arithmetic is that of fairseq's layers, in the same order.

Shapes: B sentences, G hypotheses a sentence (1 in the first step, then the beam), M nodes, S source length, C the width
of the decoder, H heads of width D (per attention), V entries of the dictionary.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from fairseq.models import BaseFairseqModel
from torch import Tensor

from fairseq_compress.runtimes.torch.projections import Affine, MakeProjection, Projection, side_by_side

STEPS_BETWEEN_CLEANINGS = 8  # of the tree; more cost attention to dead nodes, fewer cost copies
COLUMNS = 64  # the output matrix is padded to a multiple of it: with an odd number MKL takes 1.6 times as long


class DecoderWeights(NamedTuple):
    """The weights of a decoder layer with the projections of one input concatenated."""

    module: Any  # for its norms and its activation
    self_qkv: Projection
    self_out: Projection
    cross_q: Projection
    cross_kv: Projection
    cross_out: Projection
    fc1: Projection
    fc2: Projection


class TreeDecoder:
    """The weights of a decoder, laid out for :class:`TreeState`.

    Args:
        model: one that :func:`fairseq_compress.runtimes.torch.step_decoders.why_not_fast` allows.
        project: makes a projection from weight ``(out, in)`` and bias, see ``projections.py``.
    """

    def __init__(self, model: BaseFairseqModel, project: MakeProjection = Affine) -> None:
        self.model = model
        self.module: Any = model.decoder
        self.layers = [_layer(layer, project) for layer in self.module.layers]
        output = self.module.output_projection
        self.entries: int = output.out_features
        padding = -self.entries % COLUMNS
        bias = None if output.bias is None else F.pad(output.bias.detach(), (0, padding))
        self.output = project(F.pad(output.weight.detach(), (0, 0, 0, padding)), bias)
        self.columns = self.entries + padding
        self.language_tokens: tuple[int, ...] = getattr(self.module, "language_tokens", ())

    def start(self, source: Tensor, lengths: Tensor) -> "TreeState":
        """Encode a batch ``(B, S)``, padded on the right."""
        encoded = self.model.encoder(source, src_lengths=lengths)
        padding = encoded["encoder_padding_mask"]
        return TreeState(self, encoded["encoder_out"][0], padding[0] if padding else None)

    def logits(self, hidden: Tensor) -> Tensor:
        """``(N, C)`` -> ``(N, V + padding)`` in float32; the padding columns are -inf."""
        logits = self.output(hidden).float()
        logits[:, self.entries :] = -math.inf
        return logits

    def embed(self, tokens: Tensor, step: int) -> Tensor:
        """Tokens ``(N,)``, all at position ``step``, to the input of the first layer ``(N, C)``."""
        module = self.module
        x = module.embed_scale * module.embed_tokens(tokens)
        if module.project_in_dim is not None:
            x = module.project_in_dim(x)
        if module.embed_positions is not None:
            # Only the length of what it is given matters, and that there is an incremental state.
            x += module.embed_positions(tokens.new_zeros(1, step + 1), incremental_state={})[:, -1]
        if module.layernorm_embedding is not None:
            x = module.layernorm_embedding(x)
        return x

    def leave(self, x: Tensor) -> Tensor:
        """The norm and projection between the last layer and the output matrix."""
        if self.module.layer_norm is not None:
            x = self.module.layer_norm(x)
        if self.module.project_out_dim is not None:
            x = self.module.project_out_dim(x)
        return x


class TreeState:
    """See :class:`fairseq_compress.runtimes.torch.step_decoders.State`.

    Args:
        encoded: ``(S, B, C_encoder)``.
        padding: ``(B, S)``, true at padding, or None.
    """

    def __init__(self, decoder: TreeDecoder, encoded: Tensor, padding: Tensor | None) -> None:
        self.decoder = decoder
        source_length, batch, _ = encoded.shape
        flat = encoded.reshape(source_length * batch, -1)
        self._source = [  # for each layer (2, B, H, S, D)
            layer.cross_kv(flat)
            .view(source_length, batch, 2, layer.module.encoder_attn.num_heads, -1)
            .permute(2, 1, 3, 0, 4)
            .contiguous()
            for layer in decoder.layers
        ]
        self._source_mask = None
        if padding is not None and padding.any():
            mask = torch.zeros(padding.shape, dtype=encoded.dtype, device=encoded.device)
            self._source_mask = mask.masked_fill(padding, -math.inf)[:, None, None]  # (B, 1, 1, S)
        self._step = 0
        self._nodes = 0
        # For each hypothesis 0 at the nodes on its path and -inf elsewhere, (B, G, M).
        self._paths = torch.zeros(batch, 1, 0, dtype=encoded.dtype, device=encoded.device)
        attentions = (layer.module.self_attn for layer in decoder.layers)
        sizes = ((each.num_heads, STEPS_BETWEEN_CLEANINGS, each.head_dim) for each in attentions)
        # For each layer keys and values of the nodes and room for more, (2, B, H, M', D).
        self._tree = [encoded.new_empty(2, batch, *size) for size in sizes]

    def hidden(self, tokens: Tensor) -> Tensor:
        """Append the last tokens ``(B, G)``: features ``(B G, C)``, the input of the output matrix."""
        for language in self.decoder.language_tokens if self._step == 0 else ():
            self._append(tokens)
            tokens = torch.full_like(tokens, language)
        return self._append(tokens)

    def _append(self, tokens: Tensor) -> Tensor:
        batch, group = tokens.shape
        self._grow(group)
        x = self.decoder.embed(tokens.reshape(-1), self._step)
        mask = self._paths[:, None]
        for index, layer in enumerate(self.decoder.layers):
            x = self._run_layer(layer, self._tree[index], self._source[index], x, mask, (batch, group))
        self._step += 1
        return self.decoder.leave(x)

    def log_probs(self, tokens: Tensor) -> Tensor:
        logits = self.decoder.logits(self.hidden(tokens))
        return torch.log_softmax(logits[:, : self.decoder.entries], dim=-1)

    def reorder(self, parents: Tensor) -> None:
        self._paths = self._paths.gather(1, parents[:, :, None].expand(-1, -1, self._nodes))

    def keep(self, rows: Tensor) -> None:
        self._source = [part.index_select(1, rows) for part in self._source]
        if self._source_mask is not None:
            self._source_mask = self._source_mask.index_select(0, rows)
        self._paths = self._paths.index_select(0, rows)
        self._clean(rows, 0)

    def _grow(self, group: int) -> None:
        """Add a node for each hypothesis, visible to it alone."""
        if self._nodes + group > self._tree[0].size(3):
            self._clean(None, group)
        own = self._paths.new_full((group, group), -math.inf).fill_diagonal_(0).expand(self._paths.size(0), -1, -1)
        self._paths = torch.cat([self._paths, own], dim=2)
        self._nodes += group

    def _clean(self, rows: Tensor | None, group: int) -> None:
        """Copy the nodes that some hypothesis reaches, of the sentences ``rows`` or all, into a tree with room."""
        reached = (self._paths == 0).any(dim=1)  # (B, M)
        count = int(reached.sum(1).max())
        nodes = reached.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]  # (B, M')
        self._paths = self._paths.gather(2, nodes[:, None].expand(-1, self._paths.size(1), -1))
        if rows is None:
            rows = torch.arange(nodes.size(0), device=nodes.device)
        room = count + STEPS_BETWEEN_CLEANINGS * max(group, self._paths.size(1))
        self._tree = [_copied(tree, rows, nodes, room) for tree in self._tree]
        self._nodes = count

    def _run_layer(
        self, layer: DecoderWeights, tree: Tensor, source: Tensor, x: Tensor, mask: Tensor, shape: tuple[int, int]
    ) -> Tensor:
        """fairseq's ``TransformerDecoderLayerBase.forward`` for one step; ``x`` is ``(B G, C)``."""
        batch, group = shape
        module = layer.module

        def self_attention(x: Tensor) -> Tensor:
            qkv = layer.self_qkv(x).view(batch, group, 3, module.self_attn.num_heads, -1)
            qkv = qkv.permute(2, 0, 3, 1, 4)  # (3, B, H, G, D)
            tree[:, :, :, self._nodes - group : self._nodes] = qkv[1:]
            keys, values = tree[:, :, :, : self._nodes]
            return layer.self_out(_attend(qkv[0], keys, values, mask))

        def cross_attention(x: Tensor) -> Tensor:
            q = layer.cross_q(x).view(batch, group, module.encoder_attn.num_heads, -1).transpose(1, 2)
            return layer.cross_out(_attend(q, source[0], source[1], self._source_mask))

        def feed_forward(x: Tensor) -> Tensor:
            return layer.fc2(module.activation_fn(layer.fc1(x)))

        norms = (module.self_attn_layer_norm, module.encoder_attn_layer_norm, module.final_layer_norm)
        for norm, block in zip(norms, (self_attention, cross_attention, feed_forward), strict=True):
            x = block(norm(x)) + x if module.normalize_before else norm(block(x) + x)
        return x


def _copied(tree: Tensor, rows: Tensor, nodes: Tensor, room: int) -> Tensor:
    """The ``nodes (B, M)`` of the sentences ``rows`` in a tree with room for more."""
    _, batch, heads, capacity, width = tree.shape
    head = torch.arange(heads, device=nodes.device)
    place = ((rows[:, None] * heads + head)[:, :, None] * capacity + nodes[:, None]).flatten()
    copy = tree.new_empty(2, nodes.size(0), heads, room, width)
    chosen = tree.view(2, batch * heads * capacity, width).index_select(1, place)
    copy[:, :, :, : nodes.size(1)] = chosen.view(2, nodes.size(0), heads, nodes.size(1), width)
    return copy


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Queries ``(B, H, G, D)`` over keys and values ``(B, H, M, D)`` to ``(B G, H D)``."""
    if q.device.type == "cpu" and q.dtype is torch.bfloat16:  # where the fused kernel is up to 7 times as slow
        scores = (q * q.size(-1) ** -0.5) @ k.transpose(-2, -1)
        scores = scores if mask is None else scores + mask
        attended = torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v
    else:
        attended = F.scaled_dot_product_attention(q, k, v, mask)
    return attended.transpose(1, 2).reshape(q.size(0) * q.size(2), -1)


def _layer(module: Any, project: MakeProjection) -> DecoderWeights:
    own, cross = module.self_attn, module.encoder_attn
    return DecoderWeights(
        module, self_qkv=project(*side_by_side(own.q_proj, own.k_proj, own.v_proj)),
        self_out=project(*side_by_side(own.out_proj)), cross_q=project(*side_by_side(cross.q_proj)),
        cross_kv=project(*side_by_side(cross.k_proj, cross.v_proj)), cross_out=project(*side_by_side(cross.out_proj)),
        fc1=project(*side_by_side(module.fc1)), fc2=project(*side_by_side(module.fc2)),
    )  # fmt: skip
