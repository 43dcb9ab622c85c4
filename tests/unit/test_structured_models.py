"""Models of every structure in the hands of everything else: beam search, losses, starts, averages, plans."""

import pytest
import torch
from fairseq.dataclass.configs import EMAConfig
from fairseq.models.ema import EMA
from torch import nn

import fairseq_compress
from fairseq_compress.models.student_output import student_output, why_no_output_matrix
from fairseq_compress.runtimes.torch.step_decoders import step_decoder, why_not_fast
from fairseq_compress.surgery.teacher_layers import choose_layers
from fairseq_compress.surgery.teacher_start import initialize_from
from fairseq_compress.weights.attach import attach_plan
from fairseq_compress.weights.reading import parse_plan
from tests.helpers.structures import BATCH, KINDS, make

fairseq_compress.register()


@pytest.mark.parametrize("kind", KINDS)
def test_our_beam_search_takes_the_fast_decoder_only_where_it_is_right(kind):
    model = make(**KINDS[kind]).eval()
    slow = {"ssru": "SSRU", "average": "AverageAttention", "several": "SSRU", "bottleneck": "BottleneckDecoderLayer",
            "convolution": "those before it", "low-rank": "LowRankLinear", "sparse": "SparseLinear",
            "factorized": "FactorizedOutput", "tensor-train": "TensorTrainOutput"}  # fmt: skip
    reason = why_not_fast(model)
    assert (slow[kind.partition(",")[0]] in reason) if kind.partition(",")[0] in slow else reason is None
    with torch.no_grad():
        state = step_decoder(model).start(BATCH["src_tokens"], BATCH["src_lengths"])
        expected = torch.log_softmax(model(**BATCH)[0], -1)
        for step in range(3):
            found = state.log_probs(BATCH["prev_output_tokens"][:, step : step + 1])
            torch.testing.assert_close(found, expected[:, step], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["tensor-train", "factorized", "low-rank", "sparse"])
def test_a_student_of_the_same_structure_starts_as_its_teacher(kind):
    teacher, student = make(**KINDS[kind]).eval(), make(**KINDS[kind]).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    layers, _ = choose_layers({}, student, teacher)
    initialize_from(student, teacher, layers, "refuse", "teacher.pt")
    torch.testing.assert_close(student(**BATCH)[0], teacher(**BATCH)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_moving_average_of_weights_of_fairseq(kind):
    model = make(**KINDS[kind])
    average = EMA(model, EMAConfig(store_ema=True, ema_decay=0.5), skip_keys=set())
    old = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    average.step(model, 1)
    name = next(name for name, parameter in model.named_parameters() if parameter.dim() == 1)
    torch.testing.assert_close(average.get_model().state_dict()[name], old[name] + 0.5)
    for name, value in average.get_model().state_dict().items():
        assert value.is_floating_point() or torch.equal(value, old[name])


def test_a_plan_tells_which_layers_it_leaves(caplog):
    attach_plan(parse_plan("weights:\n  - {modules: ['*'], bits: 8}\n", "plan"), make(**KINDS["sparse"]))
    assert "22 layers that match * are not compressed" in caplog.text


@pytest.mark.parametrize("kind", ["factorized", "factorized, apart", "convolution"])
def test_losses_may_start_from_hidden_states(kind):
    model = make(**KINDS[kind]).eval()
    assert why_no_output_matrix(model) is None
    output = student_output(model, BATCH, "hidden")
    assert output.weight.size(1) < 16
    logits = nn.functional.linear(output.hidden, output.weight)
    torch.testing.assert_close(logits, student_output(model, BATCH, "logits"), atol=1e-5, rtol=1e-5)


def test_a_tensor_train_has_no_output_matrix():
    assert "TensorTrainOutput" in why_no_output_matrix(make(**KINDS["tensor-train"]))
