"""What the first term of a criterion leaves for the others."""

import pytest
import torch

from fairseq_compress.criterions.criterion import TermCriterion
from fairseq_compress.criterions.terms.gold import Gold
from fairseq_compress.criterions.terms.term import Found, Term
from fairseq_compress.criterions.terms.word_level import WordLevel
from fairseq_compress.functional.losses.outputs import Projected, full_logits
from tests.helpers.hidden_states import arguments, built


class Spy(Term):
    """Keeps the batch."""

    def __call__(self, batch):
        self.seen = batch
        return Found(None, {})


@pytest.mark.parametrize("source", ["hidden", "logits"])
@pytest.mark.parametrize("first", [Gold, WordLevel])
def test_outputs_of_student_and_teacher(train_arguments, teacher, source, first):
    given = ["--criterion", "word_level_kd", "--loss-from", source, "--label-smoothing", 0.1]
    _, model, criterion, batch = built(arguments(train_arguments, teacher, *given))
    criterion.terms = [first(criterion.cfg, criterion.task), spy := Spy(criterion.cfg, criterion.task)]
    assert isinstance(criterion, TermCriterion)
    sample = batch(range(5))
    criterion(model.eval(), sample)
    found = spy.seen
    want = model(**sample["net_input"])[0].flatten(0, 1)
    torch.testing.assert_close(full_logits(found.outputs), want)
    assert isinstance(found.outputs, Projected) == (source == "hidden")
    if first is Gold:
        assert found.teachers is None
    else:
        own = criterion.terms[0].teachers.models[0](**sample["net_input"])[0].flatten(0, 1)
        torch.testing.assert_close(full_logits(found.teachers[0]), own)
