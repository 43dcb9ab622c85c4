"""Criterion ``hidden_state_kd``: learn from hidden states and attention maps of the teacher, beside its words."""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from fairseq.criterions import register_criterion
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from fairseq_compress.criterions.hidden_state_options import (
    FEATURES,
    HiddenStateKDConfig,
    attention_decay,
    attention_kinds,
    hidden_state_rules,
    learns_inside,
    weight,
)
from fairseq_compress.criterions.layer_transfer import (
    fit_of,
    maps_of,
    name_of,
    rates,
    student_rules,
    teacher_rules,
    transfer_of,
)
from fairseq_compress.criterions.shared import Rule, check_rules, total
from fairseq_compress.criterions.word_level_kd import WordLevelKDCriterion
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import PARTS, Moment, Transfer
from fairseq_compress.functional.losses import attention_maps as attention
from fairseq_compress.functional.losses.layer_losses import (
    cosine_loss,
    feature_loss,
    mean_loss,
    unpadded,
    variance_loss,
)
from fairseq_compress.models.layer_recorder import KINDS, Recorded, Site, recording, sizes_of
from fairseq_compress.modules.layer_maps import LayerMaps
from fairseq_compress.teachers.frozen import FrozenTeachers, dropout_modules

logger = logging.getLogger(__name__)
_FEATURE_LOSSES = {"feature": feature_loss, "feature_mean": mean_loss, "feature_variance": variance_loss}
TERMS = ("cosine", *FEATURES, "attention")


@register_criterion("hidden_state_kd", dataclass=HiddenStateKDConfig)
class HiddenStateKDCriterion(WordLevelKDCriterion):
    r"""A weighted sum of the losses of ``word_level_kd`` and of losses inside of the network:

        L = a · gold + b · T² · kd + c · cosine + d · feature + e · mean + f · variance + g · r^(epoch - 1) · attention

    Each is a sum over positions that are not padding, of the source in the encoder and of the target in the decoder.

    - ``cosine``: 1 - cos of the last hidden states, the mean of encoder and decoder (arXiv:1910.01108);
    - ``feature``, ``mean``, ``variance``: MobileBERT's losses (arXiv:2004.02984) of outputs of layers, the mean over
      the mapped pairs of layers of encoder and decoder together;
    - ``attention``, ``group``: KL of the teacher's maps to the student's, mean over heads (arXiv:2004.02984) and over
      all kinds of attention in all mapped pairs;
    - ``attention``, ``convolution``: align-to-distill (arXiv:2403.01479), all maps of the teacher of one kind against a
      learned pointwise convolution of all the student's: the encoder's sum over sentences and heads plus the mean of
      the decoder's. Takes no layer map. The official code adds it to means over the N target positions of a batch, so
      its weight of 1 is N here.

    The equations are in :mod:`fairseq_compress.functional.losses.layer_losses` and
    :mod:`fairseq_compress.functional.losses.attention_maps`. Where widths differ, the student's states go through
    learned linear maps. These maps are parameters of this criterion: trained with the student, saved as the
    checkpoint's ``criterion``, resumed, and no part of the student. ``fairseq-validate`` does not load them.

    ``--transfer`` says which losses count in which update, see
    :class:`fairseq_compress.functional.layer_map.Transfer`. In a layer phase the student has no dropout, its embeddings
    are the teacher's and stay so, and in a stage of progressive transfer the loss of its pair counts 1 / number of
    pairs. A validation logs all terms, its ``loss`` is the objective after the transfer, with r = 1.

    Logged beside what ``word_level_kd`` logs, by target token and not in bits: ``cosine_loss``, ``feature_loss``,
    ``feature_mean_loss``, ``feature_variance_loss``, ``attention_loss``, without their weights. ``loss`` is in bits,
    as if all its terms were nats.

    Raises:
        ConfigError: options are out of their rules, or do not fit the student or the teacher.
        CheckpointError: the teacher cannot be loaded.
        DataError: the cache is missing, damaged, or made from something else.
    """

    def __init__(self, cfg: HiddenStateKDConfig, task: FairseqTask) -> None:
        super().__init__(cfg, task)
        self.maps, self.transfer = LayerMaps({}), Transfer()
        self.inside: FrozenTeachers | None = None
        if not learns_inside(cfg):
            return
        self.inside = self.teachers or FrozenTeachers(cfg.teacher_path or "", task, cfg.teacher_data)
        self.fit = fit_of(cfg, sizes_of(task.student), sizes_of(self.inside.models[0]))
        check_rules(teacher_rules(cfg, self.fit))
        self.transfer, self.maps = transfer_of(cfg, self.fit), maps_of(cfg, self.fit)
        self.task.training.first = self.transfer

    def rules(self, cfg: Any) -> list[Rule]:
        """What is checked of the options, and of the student."""
        rules = [*super().rules(cfg), *hidden_state_rules(cfg)]
        return rules + list(student_rules(cfg, self.task)) if learns_inside(cfg) else rules

    def sees_inside(self, cfg: Any) -> bool:
        """Whether the teacher itself is needed beside a cache of its words."""
        return learns_inside(cfg)

    def loss_weights(self) -> tuple[float, float]:
        """Weights of the gold term and of the distillation term at this moment of the training."""
        return (self.cfg.gold_weight, self.cfg.kd_weight) if self._now().output else (0.0, 0.0)

    def forward(
        self, model: nn.Module, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """The loss summed over the batch, the ``sample_size`` that divides it, and sums to log."""
        if self.inside is None:
            return super().forward(model, sample, reduce)
        now = self._now()
        seen = now if self.training else self.transfer.whole
        if self.training and self.transfer.updates:
            self._prepare(model, now)
        student_sites, teacher_sites = self._sites(seen, "student"), self._sites(seen, "teacher")
        with (
            recording(model, **student_sites) as student,
            recording(self.inside.models[0], **teacher_sites) as teacher,
        ):
            loss, sample_size, logging_output = super().forward(model, sample, reduce)
            if self.teachers is None and any(teacher_sites.values()):
                self.inside.run(sample, next(model.parameters()).dtype)
        with torch.autocast(loss.device.type, enabled=False):
            terms = self._terms(student, teacher, sample, seen)
        for term, value in terms.items():
            if self._weight(term, now) > 0:
                loss = loss + self._weight(term, now) * value
        if self.training:
            loss = loss + self.maps.nothing()
        logging_output |= {f"{term}_loss": value.detach() for term, value in terms.items()}
        return loss, sample_size, logging_output | {"loss": loss.detach()}

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """As a module's; from a checkpoint of a training with no maps or with others, they start again."""
        own = {key: value.shape for key, value in self.state_dict().items()}
        if state_dict is None or {key: value.shape for key, value in state_dict.items()} != own:
            logger.warning("the checkpoint does not have these maps from student to teacher: they start again")
            return None
        return super().load_state_dict(state_dict, *args, **kwargs)

    def _now(self) -> Moment:
        return self.transfer.at(self.task.training.update) if self.training and self.inside else self.transfer.last

    def _weight(self, term: str, now: Moment) -> float:
        """What a term counts for now; in evaluation without its decay, which makes no model better."""
        if not (now.output if term == "cosine" else now.layers):
            return 0.0
        decays = term == "attention" and self.training
        return weight(self.cfg, term) * (attention_decay(self.cfg) ** (self.task.training.epoch - 1) if decays else 1.0)

    def _prepare(self, model: nn.Module, now: Moment) -> None:
        """Tell the task what moves how far; in the layer phase without dropout, until the trainer's next step."""
        dtype = next(model.parameters()).dtype
        if torch.finfo(dtype).bits < 32:
            raise ConfigError(
                f"--transfer {self.transfer.kind}: requires weights in float32, --amp or --autocast-dtype and not "
                f"--fp16 or --bf16, got {dtype}"
            )
        self.task.training.rates = rates(model, self.transfer, now, self.cfg.transfer_lower_lr)
        for module in () if now.output else dropout_modules(model):
            module.training = False

    def _sites(self, seen: Moment, side: str) -> dict[str, Any]:
        """What to record of one side, the fields of a pair."""
        layers: list[Site] = []
        if any(weight(self.cfg, term) > 0 for term in FEATURES):
            layers = [(pair.part, getattr(pair, side)) for pair in seen.pairs]
        attention: list[Site] = []
        for kind in attention_kinds(self.cfg) if seen.layers else ():
            if kind in self.maps.heads:
                attention += [(kind, number) for number in range(len(getattr(self.fit, side).heads[kind]))]
            else:
                attention += [(kind, getattr(pair, side)) for pair in seen.pairs if pair.part == KINDS[kind]]
        last = self.cfg.cosine_weight > 0 and seen.output
        return {"layers": sorted(set(layers)), "attention": sorted(set(attention)), "last": last}

    def _terms(self, student: Recorded, teacher: Recorded, sample: dict[str, Any], seen: Moment) -> dict[str, Tensor]:
        """The losses of what was recorded, each summed over the batch and without its weight."""
        padding = {
            "encoder": sample["net_input"]["src_tokens"].eq(self.task.source_dictionary.pad()),
            "decoder": sample["target"].eq(self.padding_idx),
        }
        found: dict[str, list[Tensor]] = {term: [] for term in TERMS}
        for part in PARTS if student.last else ():
            own, other = (unpadded(each.last[part], padding[part]) for each in (student, teacher))
            found["cosine"].append(cosine_loss(self.maps(f"{part}_last", own), other) / len(PARTS))
        for pair in seen.pairs if student.layers else ():
            own = self.maps(name_of(pair), unpadded(student.layers[pair.part, pair.student], padding[pair.part]))
            other = unpadded(teacher.layers[pair.part, pair.teacher], padding[pair.part])
            for term in FEATURES:
                if weight(self.cfg, term) > 0:
                    found[term].append(_FEATURE_LOSSES[term](own, other) / len(self.transfer.pairs))
        for kind in attention_kinds(self.cfg) if student.attention else ():
            found["attention"] += self._attention(kind, student, teacher, sample, padding, seen)
        return {term: torch.stack(losses).sum() for term, losses in found.items() if losses}

    def _attention(
        self,
        kind: str,
        student: Recorded,
        teacher: Recorded,
        sample: dict[str, Any],
        padding: dict[str, Tensor],
        seen: Moment,
    ) -> Iterator[Tensor]:
        """Divergences of maps, with their parts in the whole: one for each pair, or one for all maps of the kind."""
        kinds, keys, queries = attention_kinds(self.cfg), padding["encoder"], padding[KINDS[kind]]
        if kind == "decoder":
            keys = sample["net_input"]["prev_output_tokens"].eq(self.padding_idx)
        forbidden = attention.forbidden_keys(keys, causal=kind == "decoder")

        def maps(side: Recorded, number: int) -> Tensor:
            return attention.log_maps(*side.attention[kind, number], forbidden)

        if kind in self.maps.heads:
            students, teachers = (
                [attention.maps_of(maps(side, number), forbidden) for number in range(len(sizes.heads[kind]))]
                for side, sizes in ((student, self.fit.student), (teacher, self.fit.teacher))
            )
            counted = ~queries[:, :, None] & ~keys[:, None, :]
            divergence = attention.aligned_divergence(
                torch.cat(teachers, 1), self.maps.aligned(kind, students), counted
            )
            yield divergence / sum(KINDS[other] == KINDS[kind] for other in kinds)
            return
        count = sum(pair.part == KINDS[other] for other in kinds for pair in self.transfer.pairs)
        for pair in seen.pairs:
            if pair.part == KINDS[kind]:
                pair_maps = maps(teacher, pair.teacher), maps(student, pair.student)
                heads = min(each.size(1) for each in pair_maps)
                other, own = (attention.group_heads(each, heads) for each in pair_maps)
                yield attention.map_divergence(other, own, queries) / count

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Turn summed outputs of all processes and batches into what is logged."""
        super().reduce_metrics(logging_outputs)
        tokens = total(logging_outputs, "ntokens")
        for key in (f"{term}_loss" for term in TERMS):
            if any(key in log for log in logging_outputs):
                metrics.log_scalar(key, total(logging_outputs, key) / tokens, tokens, round=4)
