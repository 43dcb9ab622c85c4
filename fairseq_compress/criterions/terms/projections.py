"""Distances between the weights of student and teacher through shared projections (arXiv:1909.11687)."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from fairseq_compress.compat import fairseq_options
from fairseq_compress.criterions.terms.term import Batch, Found, Metric, Term, TermOptions
from fairseq_compress.functional.layer_map import read_layer_map
from fairseq_compress.modules.projections import DIRECTIONS, SharedProjections
from fairseq_compress.options import option
from fairseq_compress.teachers.matched_weights import matched_weights, projection_sizes

logger = logging.getLogger(__name__)


@fairseq_options
class ProjectionOptions(TermOptions):
    """Options of :class:`Projections`."""

    projection_loss: str = option(
        "none",
        "penalize the distance of the teacher's weights, projected, to the student's (down), the reverse (up), or both",
        choices=("none", *DIRECTIONS),
    )
    projection_weight: float = option(1.0, "weight of the projection losses", range="[0, inf)")
    layer_map: str | None = option(
        None,
        "for each student layer in order, the teacher layer (from 0, - for none): 'encoder:1,3,5 decoder:2,-' "
        "(default: spread evenly)",
        needs="projection_loss",
    )


class Projections(Term):
    """p · (down + up), in training only: :mod:`fairseq_compress.functional.losses.projection_losses`.

    No sum over tokens, so it is multiplied by the sample size that the trainer divides by.
    """

    options = ProjectionOptions
    metrics = tuple(Metric(f"{way}_loss", "sample_size", bits=False, digits=4) for way in ("down", "up"))

    @classmethod
    def counts(cls, cfg: Any) -> bool:
        return str(cfg.projection_loss) != "none"

    @classmethod
    def problems(cls, cfg: Any, task: Any, kinds: Sequence[type[Term]]) -> Iterator[str]:
        linked = getattr(getattr(task, "student", None), "student_projection", None) is not None
        if not linked and not any(kind.counts(cfg) for kind in kinds[1:]):
            logger.warning(
                "the student learns nothing from the teacher: that takes --student-embeddings projected, "
                "--projection-loss or --word-kd-weight"
            )
        yield from ()

    def __init__(self, cfg: Any, task: Any) -> None:
        super().__init__(cfg, task)
        given = None if cfg.layer_map is None else read_layer_map(cfg.layer_map)
        self.matched = matched_weights(task.student.student, task.student.teacher, given)
        axes = {weight.axes for weight in self.matched}
        self.projections = SharedProjections(projection_sizes(self.matched), str(cfg.projection_loss), axes)

    @property
    def module(self) -> tuple[str, nn.Module]:
        return "projections", self.projections

    def __call__(self, batch: Batch) -> Found:
        if not batch.training:
            return Found(None, {})
        distances, size = self.projections.loss(weight.pair() for weight in self.matched), batch.sample_size
        logged = {"down_loss": size * distances.down.detach(), "up_loss": size * distances.up.detach()}
        return Found(size * self.cfg.projection_weight * distances.total, logged)
