"""The references: label-smoothed cross-entropy."""

from fairseq_compress.criterions.terms.term import Batch, Found, Metric, Term, counts_of


class Gold(Term):
    """Label-smoothed cross-entropy (arXiv:1512.00567), :mod:`fairseq_compress.functional.losses.label_smoothed`."""

    metrics = (Metric("nll_loss"),)

    def __call__(self, batch: Batch) -> Found:
        batch.outputs = self.student(batch.model, batch.sample["net_input"])
        losses = self.cross_entropy(batch.outputs, batch.sample["target"])
        return Found(losses.loss, {"nll_loss": losses.nll, **counts_of(batch.sample, self.cfg)})
