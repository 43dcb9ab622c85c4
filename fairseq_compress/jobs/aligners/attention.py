"""Links from a model's own attention to the source, as fairseq-generate ``--print-alignment`` has them.

With a(t, s) the mean over the heads of one decoder layer when target token t is predicted, t is linked to
argmax_s a(t, s) over all source tokens but EOS.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from fairseq.data.language_pair_dataset import collate
from torch import Tensor

from fairseq_compress.checkpoint.load import load_upgraded
from fairseq_compress.errors import ConfigError
from fairseq_compress.jobs.aligners import Ints, Pair
from fairseq_compress.teachers.loading import LoadedModels
from fairseq_compress.work.windows import Batch, iterate_batches


class AttentionAligner:
    """Links each target token to the source token with the greatest attention.

    Args:
        layer: number of the decoder layer from 0, and its first ``heads``; None: those of ``trained``, else the last
            layer with all of its heads.
        trained: layer and heads that learned links (:func:`trained_attention`).
        max_tokens: of a batch, on the longer side.
    """

    def __init__(
        self, models: LoadedModels, layer: int | None = None, heads: int | None = None,
        trained: tuple[int | None, int] | None = None, max_tokens: int = 4000,
    ) -> None:  # fmt: skip
        if len(models.models) != 1:
            raise ConfigError("--aligner: attention requires one model, got an ensemble")
        self._models, self._max_tokens = models, max_tokens
        self._model: Any = models.models[0]
        count = self._model.decoder.num_layers
        if layer is not None and not 0 <= layer < count:
            raise ConfigError(f"--alignment-layer: must be in [0, {count}), got {layer}")
        if trained is not None and layer is None:
            layer, heads = trained[0], trained[1] if heads is None else heads
        self._layer, self._heads = count - 1 if layer is None else layer, heads
        self.skipped = 0
        """Pairs that are empty, or too long for the model."""

    def __call__(self, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, Ints]]:
        for batch in iterate_batches(self._fitting(pairs), lambda pair: max(pair.sizes) + 1, self._max_tokens):
            yield from zip(batch.items, self._links(batch), strict=True)

    def _fitting(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        longest = self._models.max_source_positions, self._models.max_target_positions
        for pair in pairs:
            if all(0 < size < most for size, most in zip(pair.sizes, longest, strict=True)):
                yield pair
            else:
                self.skipped += 1

    @torch.inference_mode()
    def _links(self, batch: Batch[Pair]) -> list[Ints]:
        source, target = self._models.source, self._models.target
        samples = [
            {"id": place, "source": _with(pair.source, source.eos()), "target": _with(pair.target, target.eos())}
            for place, pair in enumerate(batch.items)
        ]
        whole = collate(samples, source.pad(), source.eos(), left_pad_source=False, left_pad_target=False)
        net_input = whole["net_input"]
        maps = self._maps(net_input)  # (B, T, S)
        tokens = net_input["src_tokens"]
        outside = tokens.eq(source.pad()) | tokens.eq(source.eos())
        best = maps.masked_fill(outside[:, None], -torch.inf).argmax(dim=2)
        links: list[Any] = [None] * len(samples)
        for place, row in zip(whole["id"].tolist(), best, strict=True):
            count = len(batch.items[place].target)
            links[place] = torch.stack([row[:count], torch.arange(count)], dim=1).numpy()
        return links

    def _maps(self, net_input: dict[str, Tensor]) -> Tensor:
        encoded = self._model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
        _, more = self._model.decoder(
            net_input["prev_output_tokens"], encoder_out=encoded, features_only=True, alignment_layer=self._layer,
            alignment_heads=self._heads,
        )  # fmt: skip
        if more["attn"][0] is None:
            raise ConfigError(f"--alignment-layer: must attend to the source, layer {self._layer} does not")
        found: Tensor = more["attn"][0]
        return found


def trained_attention(path: str) -> tuple[int | None, int] | None:
    """Layer (None: the last) and number of heads that a training taught links, None without such a training.

    By ``--guided-alignment-weight``, or by fairseq's ``transformer_align``.
    """
    cfg = load_upgraded(path)[1]
    criterion: Any = getattr(cfg, "criterion", None)
    if getattr(criterion, "guided_alignment_weight", 0):
        return criterion.guided_alignment_layer, criterion.guided_alignment_heads
    layer = getattr(cfg.model, "alignment_layer", None)
    return None if layer is None else (layer, cfg.model.alignment_heads)


def _with(ids: Ints, eos: int) -> Tensor:
    return torch.cat([torch.from_numpy(ids), torch.tensor([eos])])
