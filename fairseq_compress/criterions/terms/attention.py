"""Attention maps, by groups of heads or by a learned convolution of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_compress.compat import fairseq_options
from fairseq_compress.criterions.terms.layers import Fit, LayerTerm, TransferOptions
from fairseq_compress.criterions.terms.term import Batch, Term
from fairseq_compress.functional.layer_map import Moment
from fairseq_compress.functional.losses import attention_maps
from fairseq_compress.models.layer_recorder import KINDS, Recorded, Sizes, recomputes_layers, sizes_of
from fairseq_compress.options import option


@fairseq_options
class AttentionOptions(TransferOptions):
    """Options of :class:`Attention`."""

    attention_weight: float = option(
        0.0, "weight of the attention loss, KL(teacher || student) of attention maps", range="[0, inf)"
    )
    attention_kinds: str = option(
        "encoder,decoder,cross",
        "attention to compare: encoder and decoder self-attention, and encoder-decoder attention (cross)",
        needs="attention_weight",
    )
    # Not attention_heads: in fairseq's flat namespace that is a value of the model.
    attention_head_map: str = option(
        "group",
        "group: average neighbouring heads; one model must have a multiple of the other's heads. convolution "
        "(align-to-distill): a learned pointwise convolution maps all heads of all student layers to all of the "
        "teacher's; the loss is a sum over sentences and heads, so use a larger weight",
        choices=("group", "convolution"),
        needs="attention_weight",
    )
    attention_decay: float | None = option(
        None,
        "factor by which --attention-weight decays each epoch (default: 1; with convolution 0.9)",
        range="(0, 1]",
        needs="attention_weight",
    )


class Attention(LayerTerm):
    """KL of the teacher's maps to the student's: see the criterion ``hidden_state_kd``."""

    name = "attention"
    options = AttentionOptions

    @classmethod
    def problems(cls, cfg: Any, task: Any, kinds: Sequence[type[Term]]) -> Iterator[str]:
        yield from super().problems(cfg, task, kinds)
        names = cfg.attention_kinds.split(",")
        if not set(names) <= set(KINDS) or len(set(names)) < len(names):
            yield f"--attention-kinds: must be some of {','.join(KINDS)}, each once, got {cfg.attention_kinds!r}"
        if cls.counts(cfg) and str(cfg.transfer) == "progressive" and not _by_group(cfg):
            yield "--attention-head-map: must be group with --transfer progressive, layer by layer, got convolution"

    @classmethod
    def parts(cls, cfg: Any) -> set[str]:
        return {KINDS[kind] for kind in kinds_of(cfg)}

    @classmethod
    def uses_layer_map(cls, cfg: Any) -> bool:
        return _by_group(cfg)

    @classmethod
    def student_problems(cls, cfg: Any, student: nn.Module) -> Iterator[str]:
        if recomputes_layers(student):
            yield (
                "--checkpoint-activations: must be off with --attention-weight, whose queries and keys it discards, "
                "got on"
            )
        yield from _kind_problems(kinds_of(cfg), sizes_of(student), "student")

    def teacher_problems(self, fit: Fit) -> Iterator[str]:
        kinds = kinds_of(self.cfg)
        yield from _kind_problems(kinds, fit.teacher, "teacher")
        if not _by_group(self.cfg):
            return
        parts = {pair.part for pair in fit.pairs}
        for kind in kinds:
            if KINDS[kind] not in parts:
                yield (
                    f"--layer-map: must map a layer of the {KINDS[kind]} with {kind} among --attention-kinds, "
                    f"got {self.cfg.layer_map!r}"
                )
        if not all(sizes.heads[kind] for kind in kinds for sizes in (fit.student, fit.teacher)):
            return
        for kind in kinds:
            student, teacher = fit.student.heads[kind], fit.teacher.heads[kind]
            for pair in fit.pairs:
                if pair.part != KINDS[kind] or pair.student >= len(student) or pair.teacher >= len(teacher):
                    continue
                own, other = student[pair.student], teacher[pair.teacher]
                if max(own, other) % min(own, other):
                    yield (
                        f"--attention-head-map group: the teacher's {kind} attention must have a multiple or a divisor "
                        f"of the student's {own} heads, got {other}"
                    )

    def heads(self, fit: Fit) -> Mapping[str, tuple[int, int]]:
        kinds = () if _by_group(self.cfg) else kinds_of(self.cfg)
        return {kind: (sum(fit.student.heads[kind]), sum(fit.teacher.heads[kind])) for kind in kinds}

    def sites(self, side: str, seen: Moment) -> dict[str, Any]:
        found: list[tuple[str, int]] = []
        for kind in kinds_of(self.cfg) if seen.layers else ():
            if kind in self.maps.heads:
                found += [(kind, number) for number in range(len(getattr(self.fit, side).heads[kind]))]
            else:
                found += [(kind, getattr(pair, side)) for pair in seen.pairs if pair.part == KINDS[kind]]
        return {"attention": found}

    def values(self, batch: Batch) -> list[Tensor]:
        kinds = kinds_of(self.cfg) if batch.student.attention else ()
        return [value for kind in kinds for value in self._of_kind(kind, batch)]

    def decay(self) -> float:
        default = 1.0 if _by_group(self.cfg) else 0.9  # as published with align-to-distill
        decay = default if self.cfg.attention_decay is None else self.cfg.attention_decay
        return float(decay) ** (self.task.clock.epoch - 1)

    def _of_kind(self, kind: str, batch: Batch) -> Iterator[Tensor]:
        """Divergences, scaled by their part of the loss: one for each pair, or one for all maps of the kind."""
        kinds, keys, queries = kinds_of(self.cfg), batch.padding["encoder"], batch.padding[KINDS[kind]]
        if kind == "decoder":
            keys = batch.sample["net_input"]["prev_output_tokens"].eq(self.padding_idx)
        forbidden = attention_maps.forbidden_keys(keys, causal=kind == "decoder")

        def maps(side: Recorded, number: int) -> Tensor:
            return attention_maps.log_maps(*side.attention[kind, number], forbidden)

        if kind in self.maps.heads:
            students, teachers = (
                [attention_maps.maps_of(maps(side, number), forbidden) for number in range(len(sizes.heads[kind]))]
                for side, sizes in ((batch.student, self.fit.student), (batch.teacher, self.fit.teacher))
            )
            counted = ~queries[:, :, None] & ~keys[:, None, :]
            aligned = self.maps.aligned(kind, students)
            divergence = attention_maps.aligned_divergence(torch.cat(teachers, 1), aligned, counted)
            yield divergence / sum(KINDS[other] == KINDS[kind] for other in kinds)
            return
        count = sum(pair.part == KINDS[other] for other in kinds for pair in self.transfer.pairs)
        for pair in batch.seen.pairs:
            if pair.part == KINDS[kind]:
                both = maps(batch.teacher, pair.teacher), maps(batch.student, pair.student)
                heads = min(each.size(1) for each in both)
                teacher, student = (attention_maps.group_heads(each, heads) for each in both)
                yield attention_maps.map_divergence(teacher, student, queries) / count


def kinds_of(cfg: Any) -> tuple[str, ...]:
    """The kinds of attention whose maps are compared."""
    return tuple(cfg.attention_kinds.split(",")) if cfg.attention_weight > 0 else ()


def _by_group(cfg: Any) -> bool:
    return str(cfg.attention_head_map) == "group"


def _kind_problems(kinds: tuple[str, ...], sizes: Sizes, who: str) -> Iterator[str]:
    for kind in kinds:
        if not sizes.heads.get(kind, [0]):
            yield f"--attention-kinds: the {who} must have attention of each kind, got no {kind}"
