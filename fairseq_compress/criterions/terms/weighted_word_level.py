"""The references and the teacher's word distributions, each with a weight."""

from collections.abc import Iterator, Sequence
from typing import Any

from fairseq_compress.compat import fairseq_options
from fairseq_compress.criterions.terms.layers import LayerTerm
from fairseq_compress.criterions.terms.term import Batch, Term
from fairseq_compress.criterions.terms.word_level import TeacherOptions, WordLevel
from fairseq_compress.options import flag, option


@fairseq_options
class WeightedWordLevelOptions(TeacherOptions):
    """Options of :class:`WeightedWordLevel`."""

    gold_weight: float = option(0.5, "weight of the references", range="[0, inf)")
    kd_weight: float = option(0.5, "weight of the teacher's word distributions", range="[0, inf)")


class WeightedWordLevel(WordLevel):
    """a · CE_ls + b · T² · D, next to terms of hidden states, which must not be all of the loss in an output phase."""

    options = WeightedWordLevelOptions

    @classmethod
    def problems(cls, cfg: Any, task: Any, kinds: Sequence[type[Term]]) -> Iterator[str]:
        yield from super().problems(cfg, task, kinds)
        layers = [kind for kind in kinds if issubclass(kind, LayerTerm)]
        names = ["gold_weight", "kd_weight", *(f"{kind.name}_weight" for kind in layers)]
        if not any(getattr(cfg, name) for name in names):
            yield f"{', '.join(map(flag, names))}: must not all be 0, got 0.0"
        if cfg.kd_alpha != 0.5:
            yield f"--kd-alpha: use --gold-weight and --kd-weight here, got {cfg.kd_alpha}"
        if any(kind.counts(cfg) for kind in layers):
            yield from _inside_problems(cfg)

    def weights(self, batch: Batch) -> tuple[float, float]:
        return (self.cfg.gold_weight, self.cfg.kd_weight) if batch.now.output else (0.0, 0.0)


def _inside_problems(cfg: Any) -> Iterator[str]:
    """Options that are not supported with losses of hidden states."""
    teachers = [path for path in (cfg.teacher_path or "").split(":") if path]
    if cfg.teacher_cache and not teachers:
        yield "--teacher-path: must name the teacher next to --teacher-cache, which holds no hidden states, got nothing"
    if len(teachers) > 1:
        yield f"--teacher-path: must name one teacher to learn hidden states from, got {len(teachers)}"
    for name, needed in (("on_policy_fraction", 0), ("kd_iterations", 1), ("teacher_dropout_passes", 0)):
        if (value := getattr(cfg, name)) != needed:
            yield f"{flag(name)}: must be {needed} where hidden states are learned, got {value}"
