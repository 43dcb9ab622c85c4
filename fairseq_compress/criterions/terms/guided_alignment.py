"""Links between source and target tokens: one head of the decoder's attention to the source learns them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from fairseq_compress.compat import fairseq_options
from fairseq_compress.criterions.terms.term import Batch, Found, Metric, Term, TermOptions
from fairseq_compress.functional.losses.attention_maps import forbidden_keys, log_maps
from fairseq_compress.functional.losses.guided_alignment import guided_alignment_loss
from fairseq_compress.models.layer_recorder import recomputes_layers, recording, sizes_of
from fairseq_compress.options import option


@fairseq_options
class GuidedAlignmentOptions(TermOptions):
    """Options of :class:`GuidedAlignment`."""

    guided_alignment_weight: float = option(
        0.0,
        "weight of the loss of the decoder's attention to the source, -log of its value at the links of "
        "--load-alignments (fairseq: --alignment-lambda 0.05)",
        range="[0, inf)",
    )
    guided_alignment_layer: int | None = option(
        None, "decoder layer, from 0 (default: the last)", range="[0, inf)", needs="guided_alignment_weight"
    )
    guided_alignment_heads: int = option(
        1, "the mean of the first N heads learns the links", range="[1, inf)", needs="guided_alignment_weight"
    )


class GuidedAlignment(Term):
    """See :mod:`fairseq_compress.functional.losses.guided_alignment`. Batches without links have no loss."""

    options = GuidedAlignmentOptions
    of_teacher = False
    metrics = (Metric("guided_alignment_loss"),)

    @classmethod
    def counts(cls, cfg: Any) -> bool:
        return bool(cfg.guided_alignment_weight > 0)

    @classmethod
    def problems(cls, cfg: Any, task: Any, kinds: Sequence[type[Term]]) -> Iterator[str]:
        if not cls.counts(cfg):
            return
        if not getattr(task.cfg, "load_alignments", False):
            yield "--load-alignments: must be given with --guided-alignment-weight"
        if (student := getattr(task, "student", None)) is not None:
            yield from _student_problems(cfg, student)

    @contextmanager
    def recording(self, batch: Batch) -> Iterator[None]:
        heads = sizes_of(batch.model).heads["cross"]
        layer = self.cfg.guided_alignment_layer
        self._site = "cross", len(heads) - 1 if layer is None else int(layer)
        with recording(batch.model, attention=[self._site]) as self._recorded:
            yield

    def __call__(self, batch: Batch) -> Found:
        links = batch.sample.get("alignments")
        if links is None or not len(links):
            return Found(None, {})
        query, key, heads = self._recorded.attention[self._site]
        padding = batch.sample["net_input"]["src_tokens"].eq(self.task.source_dictionary.pad())
        maps = log_maps(query, key, heads, forbidden_keys(padding))[:, : self.cfg.guided_alignment_heads]
        loss = guided_alignment_loss(maps, links, batch.sample["align_weights"])
        return Found(self.cfg.guided_alignment_weight * loss, {"guided_alignment_loss": loss.detach()})


def _student_problems(cfg: Any, student: nn.Module) -> Iterator[str]:
    heads, layer = sizes_of(student).heads["cross"], cfg.guided_alignment_layer
    if not heads:
        yield "--guided-alignment-weight: requires attention to the source in every decoder layer"
        return
    if layer is not None and layer >= len(heads):
        yield f"--guided-alignment-layer: must be in [0, {len(heads)}), got {layer}"
    elif cfg.guided_alignment_heads > (count := heads[-1 if layer is None else layer]):
        yield f"--guided-alignment-heads: must be in [1, {count}], as the layer has, got {cfg.guided_alignment_heads}"
    if recomputes_layers(student):
        yield "--checkpoint-activations: must be off with --guided-alignment-weight, whose queries and keys it discards"
