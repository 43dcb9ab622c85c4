"""The references: label-smoothed cross-entropy."""

from fairseq_compress.criterions.terms.term import Batch, Found, Metric, Term, counts_of
from fairseq_compress.functional.losses.label_smoothed import label_smoothed_loss
from fairseq_compress.models.student_output import student_output


class Gold(Term):
    """Label-smoothed cross-entropy (arXiv:1512.00567), :mod:`fairseq_compress.functional.losses.label_smoothed`."""

    metrics = (Metric("nll_loss"),)

    def __call__(self, batch: Batch) -> Found:
        losses = label_smoothed_loss(
            student_output(batch.model, batch.sample["net_input"], str(self.cfg.loss_from)),
            batch.sample["target"].reshape(-1),
            label_smoothing=self.cfg.label_smoothing,
            padding_idx=self.padding_idx,
        )
        return Found(losses.loss, {"nll_loss": losses.nll, **counts_of(batch.sample, self.cfg)})
