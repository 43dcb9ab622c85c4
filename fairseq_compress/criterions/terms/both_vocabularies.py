"""Cross-entropies of a student and a teacher with different vocabularies, trained together."""

from collections.abc import Iterator, Sequence
from typing import Any

from fairseq_compress.compat import fairseq_options
from fairseq_compress.criterions.terms.term import Batch, Found, Metric, Term, TermOptions, counts_of
from fairseq_compress.models.dual_vocabulary import DualVocabularyModel, dual_outputs
from fairseq_compress.options import option


@fairseq_options
class BothVocabulariesOptions(TermOptions):
    """Options of :class:`BothVocabularies`."""

    cross_entropy_weight: float = option(1.0, "weight of the cross-entropies of student and teacher", range="[0, inf)")


class BothVocabularies(Term):
    """ε · (CE_student + CE_teacher), each a sum over the target tokens in its own segmentation."""

    options = BothVocabulariesOptions
    metrics = (Metric("nll_loss"), Metric("teacher_nll_loss", "teacher_ntokens"))

    @classmethod
    def problems(cls, cfg: Any, task: Any, kinds: Sequence[type[Term]]) -> Iterator[str]:
        if not isinstance(getattr(task, "student", None), DualVocabularyModel):
            yield "--criterion dual_vocab_kd: needs --task dual_vocab_translation"

    def __call__(self, batch: Batch) -> Found:
        sample = batch.sample
        words = getattr(self.cfg, "word_kd_weight", 0.0) > 0
        batch.outputs = dual_outputs(batch.model, sample, "logits" if words else str(self.cfg.loss_from))
        targets = sample["target"], sample["teacher"]["target"]
        student, teacher = map(self.cross_entropy, batch.outputs, targets)
        logged = {
            "nll_loss": student.nll,
            "teacher_nll_loss": teacher.nll,
            "teacher_ntokens": sample["teacher"]["ntokens"],
        }
        loss = self.cfg.cross_entropy_weight * (student.loss + teacher.loss)
        return Found(loss, logged | counts_of(sample, self.cfg))
