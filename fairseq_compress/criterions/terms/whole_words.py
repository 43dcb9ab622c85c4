"""Distillation of whole words between two segmentations."""

from collections.abc import Iterator, Sequence
from typing import Any

from fairseq_compress.compat import fairseq_options
from fairseq_compress.criterions.terms.term import Batch, Found, Metric, Term, TermOptions
from fairseq_compress.functional.losses.predictions import reference_lprobs
from fairseq_compress.functional.losses.word_kd import word_kd_loss, word_log_probs
from fairseq_compress.options import option


@fairseq_options
class WholeWordsOptions(TermOptions):
    """Options of :class:`WholeWords`."""

    word_kd_weight: float = option(
        0.0,
        "weight of word distillation; the probability of a word is the product over its subwords",
        range="[0, inf)",
    )


class WholeWords(Term):
    """:mod:`fairseq_compress.functional.losses.word_kd`, a sum over the words of the target."""

    options = WholeWordsOptions
    metrics = (Metric("word_kd_loss", bits=False, digits=4),)

    @classmethod
    def counts(cls, cfg: Any) -> bool:
        return bool(cfg.word_kd_weight > 0)

    @classmethod
    def problems(cls, cfg: Any, task: Any, kinds: Sequence[type[Term]]) -> Iterator[str]:
        if cls.counts(cfg) and str(cfg.loss_from) == "hidden":
            yield "--loss-from hidden: must be auto or logits with --word-kd-weight, which takes logits"

    def __call__(self, batch: Batch) -> Found:
        sample = batch.sample
        numbers = sample["words"]["student"], sample["words"]["teacher"]
        count = int(numbers[0].max()) + 1
        student, teacher = (
            word_log_probs(reference_lprobs(output, side["target"]), number, count)
            for output, side, number in zip(batch.outputs, (sample, sample["teacher"]), numbers, strict=True)
        )
        word = word_kd_loss(student, teacher)
        return Found(self.cfg.word_kd_weight * word, {"word_kd_loss": word.detach()})
