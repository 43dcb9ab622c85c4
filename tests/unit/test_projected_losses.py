"""Losses from hidden states and the output matrix equal the losses from logits, and never form all logits."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fairseq_compress.functional.losses.label_smoothed import label_smoothed_loss
from fairseq_compress.functional.losses.outputs import Projected
from fairseq_compress.functional.losses.word_level_kd import word_level_kd_loss
from tests.helpers.loss_helpers import PADDING, gradcheck, logits, targets, top_k_of

ROWS, WIDTH, VOCABULARY = 41, 6, 23
TEACHERS = ("none", "logits", "projected", "ensemble", "top k")


def student(bias=True, dtype=torch.float64):
    """Hidden states, weight and bias that want gradients."""
    tensors = (logits(ROWS, WIDTH, 0) / 3, logits(VOCABULARY, WIDTH, 1), logits(1, VOCABULARY, 2)[0])
    return [tensor.to(dtype).requires_grad_() for tensor in tensors[: 2 + bias]]


def teachers_of(kind, temperature):
    other = Projected(logits(ROWS, 4, 3), logits(VOCABULARY, 4, 4) / 3, logits(1, VOCABULARY, 5)[0])
    plain = logits(ROWS, VOCABULARY, 6)
    return {
        "logits": [plain],
        "projected": [other],
        "ensemble": [plain, other, Projected(*other[:2])],
        "top k": top_k_of([plain], 5, temperature),
    }[kind]


def loss_of(output, kind, target, temperature=2.0, chunk_rows=None, teachers=None):
    if kind == "none":
        weights = torch.linspace(0, 2, len(target), dtype=torch.float64)
        return label_smoothed_loss(output, target, label_smoothing=0.1, weights=weights, chunk_rows=chunk_rows)
    return word_level_kd_loss(
        output, teachers or teachers_of(kind, temperature), target, temperature=temperature,
        gold_weight=0.3, kd_weight=0.7, label_smoothing=0.1, chunk_rows=chunk_rows,
    )  # fmt: skip


@pytest.mark.parametrize("padded", [0, 7])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kind", TEACHERS)
def test_equals_the_path_through_logits(kind, temperature, bias, padded):
    target = targets(ROWS, VOCABULARY, padded)
    through_logits, hidden = student(bias), student(bias)
    want = loss_of(F.linear(*through_logits), kind, target, temperature)
    got = loss_of(Projected(*hidden), kind, target, temperature, chunk_rows=1)  # blocks of 8 rows
    torch.testing.assert_close(torch.stack(list(got)), torch.stack(list(want)), rtol=1e-11, atol=1e-11)
    (3 * want.loss).backward()
    (3 * got.loss).backward()
    for own, other in zip(hidden, through_logits, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("kind", ["none", "projected", "top k"])
def test_gradcheck(kind):
    target = targets(ROWS, VOCABULARY)
    assert gradcheck(lambda *tensors: loss_of(Projected(*tensors), kind, target).loss, *student())


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 1000])
def test_chunk_size_changes_nothing(chunk_rows):
    target, gradients = targets(ROWS, VOCABULARY), []
    for rows in (chunk_rows, None):
        tensors = student()
        loss_of(Projected(*tensors), "projected", target, chunk_rows=rows).loss.backward()
        gradients.append([tensor.grad for tensor in tensors])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", TEACHERS)
def test_padding_counts_for_nothing_even_when_not_finite(kind):
    target = targets(ROWS, VOCABULARY, 5)
    padded, (hidden, weight, bias) = target.eq(PADDING), student()
    clean = loss_of(Projected(hidden, weight, bias), kind, target)
    clean.loss.backward()
    broken = hidden.detach().masked_fill(padded[:, None], float("nan")).requires_grad_()
    other = weight.detach().clone().requires_grad_()
    got = loss_of(Projected(broken, other, bias.detach()), kind, target)
    got.loss.backward()
    assert torch.equal(torch.stack(list(got)), torch.stack(list(clean)))
    assert broken.grad[padded].eq(0).all()
    assert torch.equal(broken.grad, hidden.grad)
    assert torch.equal(other.grad, weight.grad)


def test_nothing_but_padding_is_zero():
    tensors = student()
    loss = loss_of(Projected(*tensors), "none", torch.full((ROWS,), PADDING)).loss
    loss.backward()
    assert loss.item() == 0
    assert all(tensor.grad.eq(0).all() for tensor in tensors)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_gets_no_gradient(frozen):
    tensors, all_free = student(), student()
    tensors[frozen].requires_grad_(False)
    for some in (tensors, all_free):
        loss_of(Projected(*some), "top k", targets(ROWS, VOCABULARY)).loss.backward()
    for number, (tensor, free) in enumerate(zip(tensors, all_free, strict=True)):
        assert (tensor.grad is None) == (number == frozen)
        assert tensor.grad is None or torch.equal(tensor.grad, free.grad)


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation gave."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if torch.is_tensor(tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("kind", ["none", "projected", "top k"])
def test_no_operation_gives_all_logits(kind):
    target, tensors = targets(ROWS, VOCABULARY), student()
    teachers = None if kind == "none" else teachers_of(kind, 2.0)
    with LargestTensor() as largest:
        loss_of(Projected(*tensors), kind, target, chunk_rows=1, teachers=teachers).loss.backward()
    assert largest.elements == max(8 * VOCABULARY, ROWS * WIDTH)  # a block, the gradient of the hidden states


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 3e-2), (torch.float16, 3e-3)])
def test_lower_precision_of_the_products(dtype, tolerance):
    """Hidden states as under autocast, a float32 weight: the gradients have their types, and small errors."""
    target, low, exact = targets(ROWS, VOCABULARY), student(dtype=torch.float32), student()
    hidden = low[0].detach().to(dtype).requires_grad_()
    for tensor, value in zip(exact, (hidden, *low[1:]), strict=True):
        tensor.data = value.detach().to(dtype).double()
    got = loss_of(Projected(hidden, *low[1:]), "top k", target)
    want = loss_of(Projected(*exact), "top k", target)
    assert got.loss.dtype == torch.float32
    torch.testing.assert_close(got.loss.double(), want.loss, rtol=tolerance, atol=0)
    got.loss.backward()
    want.loss.backward()
    assert [tensor.grad.dtype for tensor in (hidden, *low[1:])] == [dtype, torch.float32, torch.float32]
    for tensor, other in zip((hidden, *low[1:]), exact, strict=True):
        scale = other.grad.abs().max().item()
        assert (tensor.grad.double() - other.grad).abs().max().item() < tolerance * scale


def test_a_loss_scale_keeps_small_gradients_of_float16():
    """p = 1e-9 is zero in float16; times a scale of 2**20 the gradient of its row of the weight is not."""
    hidden = torch.tensor([[1.0]], dtype=torch.float16, requires_grad=True)
    weight = torch.tensor([[20.7], [0.0]], dtype=torch.float16, requires_grad=True)
    (2**20 * label_smoothed_loss(Projected(hidden, weight), torch.tensor([0]), padding_idx=9).loss).backward()
    assert weight.grad.dtype == torch.float16
    assert weight.grad[1, 0].item() == pytest.approx(2**20 * 2.718281828 ** -weight[0, 0].item(), rel=1e-2)


def test_the_products_do_not_follow_autocast():
    """The type of the hidden states decides; whoever wants bfloat16 gives them so."""
    target, gradients = targets(ROWS, VOCABULARY), []
    for enabled in (False, True):
        tensors = student(dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = loss_of(Projected(*tensors), "none", target).loss
        loss.backward()
        gradients.append([loss.detach(), *(tensor.grad for tensor in tensors)])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (Projected(torch.zeros(4, 3), torch.zeros(9, 2)), r"got \(4, 3\) and \(9, 2\)"),
        (Projected(torch.zeros(2, 2, 3), torch.zeros(9, 3)), r"got \(2, 2, 3\) and \(9, 3\)"),
        (Projected(torch.zeros(4, 3), torch.zeros(9, 3), torch.zeros(8)), r"a bias \(9,\), got \(8,\)"),
    ],
)
def test_bad_outputs(output, message):
    with pytest.raises(ValueError, match=f"student must .*{message}"):
        label_smoothed_loss(output, targets(4, 9))
    with pytest.raises(ValueError, match=f"teachers must .*{message}"):
        word_level_kd_loss(logits(4, 9, 0), [output], targets(4, 9))


def test_teachers_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"teachers must be \(4, 9\) as the student's, got \(4, 8\)"):
        word_level_kd_loss(logits(4, 9, 0), [Projected(torch.zeros(4, 3), torch.zeros(8, 3))], targets(4, 9))
