"""Factorized embeddings and output against a dense table, their ties, and what a step of training allocates."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.factorized_embedding import FactorizedEmbedding
from fairseq_compress.modules.factorized_output import FactorizedOutput
from fairseq_compress.modules.structured import relative_error

V, D, R, PAD = 20, 8, 3, 1
IDS = torch.tensor([[4, 7, 4, PAD], [0, 19, PAD, PAD]])


class TiedModel(nn.Module):
    """As a transformer with one table: two embeddings that are one, and the output."""

    def __init__(self, entries=V, width=D, rank=R):
        super().__init__()
        self.encoder = self.decoder = FactorizedEmbedding(entries, width, PAD, rank)
        self.output = FactorizedOutput.tied(self.encoder)

    def forward(self, ids):
        return self.output(self.encoder(ids).tanh())


@pytest.fixture
def model():
    torch.manual_seed(1)
    return TiedModel().double()


def loss_of(logits):
    return F.cross_entropy(logits.flatten(0, 1), IDS.flatten(), ignore_index=PAD)


def test_embedding_is_that_of_the_dense_table(model):
    embedding = model.encoder
    weight = embedding.dense_weight().detach().requires_grad_()
    ours, theirs = embedding(IDS), F.embedding(IDS, weight, PAD)
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours[IDS == PAD], torch.zeros(3, D))
    slope = torch.randn_like(theirs)
    ours.backward(slope)
    theirs.backward(slope)
    table, expand = embedding.table.weight, embedding.expand.weight
    torch.testing.assert_close(table.grad, weight.grad @ expand)
    torch.testing.assert_close(expand.grad, weight.grad.t() @ table)
    assert table.grad[PAD].abs().max() == 0


def test_output_is_that_of_the_dense_table(model):
    output = model.output
    weight = output.dense_weight().detach().requires_grad_()
    x, y = (torch.linspace(-1, 1, 5 * D, dtype=torch.float64).view(5, D).requires_grad_() for _ in range(2))
    ours, theirs = output(x), F.linear(y, weight)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(F.linear(output.reduce(x), output.table_weight), theirs)
    slope = torch.randn_like(theirs)
    ours.backward(slope)
    theirs.backward(slope)
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(output.table.weight.grad, weight.grad @ output.expand.weight)
    torch.testing.assert_close(output.expand.weight.grad, weight.grad.t() @ output.table.weight)


def test_both_gradients_meet_in_the_tied_factors(model):
    weight = model.encoder.dense_weight().detach().requires_grad_()
    loss_of(model(IDS)).backward()
    loss_of(F.linear(F.embedding(IDS, weight, PAD).tanh(), weight)).backward()
    torch.testing.assert_close(model.output.table.weight.grad, weight.grad @ model.encoder.expand.weight)
    torch.testing.assert_close(model.encoder.expand.weight.grad, weight.grad.t() @ model.encoder.table.weight)


def test_ties(model):
    assert model.output.table.weight is model.encoder.table.weight
    assert model.output.expand is model.encoder.expand
    assert sum(p.numel() for p in model.parameters()) == R * (V + D)
    assert model.output.bias is None
    assert {key.rpartition(".")[0] for key in model.state_dict()} == {
        f"{name}.{child}" for name in ("encoder", "decoder", "output") for child in ("table", "expand")
    }
    model.float()
    assert model.output.table.weight is model.encoder.table.weight
    own = FactorizedOutput(D, V, R)
    assert own.table.weight.shape == (V, R)
    assert sum(p.numel() for p in own.parameters()) == R * (V + D)


def test_rows_start_with_the_norm_of_the_dense_ones():
    torch.manual_seed(1)
    for rank in (4, 64):
        embedding = FactorizedEmbedding(4000, 64, PAD, rank)
        for weight in (embedding.dense_weight(), FactorizedOutput(64, 4000, rank).dense_weight()):
            assert weight.square().sum(1).mean().item() == pytest.approx(1, rel=0.03)
        gram = embedding.expand.weight.t() @ embedding.expand.weight
        torch.testing.assert_close(gram, torch.eye(rank) * 64 / rank, rtol=0, atol=1e-4)
        assert embedding.table.weight[PAD].abs().max() == 0
        assert embedding.table.weight.std().item() == pytest.approx(1 / 8, rel=0.03)


def test_the_padding_stays_zero_in_the_training_of_an_embedding_alone(model):
    embedding = model.encoder
    optimizer = torch.optim.Adam(embedding.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        embedding(IDS).exp().sum().backward()
        optimizer.step()
    assert embedding.dense_weight()[PAD].abs().max() == 0
    assert FactorizedEmbedding(V, D, None, R).dense_weight().abs().min() > 0


def test_a_dense_table_loads_under_all_its_names(model):
    weight = torch.randn(V, D, dtype=torch.float64)
    weight[PAD] = 0
    names = ("encoder", "decoder", "output")
    model.load_state_dict({f"{name}.weight": weight.clone() for name in names}, strict=True)
    values = torch.linalg.svdvals(weight)
    error = float(values[R:].norm() / values.norm())
    assert relative_error(model.encoder, weight) == pytest.approx(error)
    assert relative_error(model.output, weight) == pytest.approx(error)
    assert model.output.table.weight is model.encoder.table.weight
    assert model.encoder.dense_weight()[PAD].abs().max() == 0
    alone, output = FactorizedEmbedding(V, D, PAD, R).double(), FactorizedOutput(D, V, R).double()
    alone.load_state_dict({"weight": weight})
    output.load_state_dict({"weight": weight})
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(alone.state_dict()[name], value)
        assert torch.equal(output.state_dict()[name], value)


def test_a_state_of_factors_loads_as_it_is(model):
    other = TiedModel().double()
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(IDS), model(IDS))
    with pytest.raises(RuntimeError, match="size mismatch"):
        TiedModel(rank=R + 1).load_state_dict(model.state_dict())


def test_full_rank_is_exact():
    weight = torch.randn(V, D, dtype=torch.float64)
    embedding = FactorizedEmbedding(V, D, PAD, D).double()
    embedding.load_state_dict({"weight": weight})
    torch.testing.assert_close(embedding.dense_weight(), weight, rtol=0, atol=1e-12)


def test_ranks_that_no_table_has_are_refused():
    for rank, (entries, width), most in ((0, (V, D), D), (D + 1, (V, D), D), (5, (4, D), 4)):
        message = rf"rank: must be in \[1, {most}\] for {entries} x {width}, got {rank}"
        with pytest.raises(ConfigError, match=message):
            FactorizedEmbedding(entries, width, None, rank)
        with pytest.raises(ConfigError, match=message):
            FactorizedOutput(width, entries, rank)


def test_what_it_says_of_itself(model):
    assert "FactorizedEmbedding(\n    20, 8, padding_idx=1, rank=3" in str(model)
    assert "FactorizedOutput(\n    in_features=8, out_features=20, rank=3" in str(model)
    assert (model.encoder.multiply_adds, model.output.multiply_adds) == (R * D, R * (D + V))
    assert model.encoder.dense_shape == model.output.dense_shape == (V, D)


def test_autocast(model):
    exact = model(IDS)
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(IDS)
        loss_of(logits).backward()
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.double(), exact, rtol=0.05, atol=0.05)
    assert model.encoder.table.weight.grad.dtype == torch.float32


class LargestOutput(TorchDispatchMode):
    """Watches the numbers in every tensor that any operation gives, also in backward passes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        self.numbers = max(self.numbers, *sizes, 0)
        return output


def test_no_step_of_training_forms_the_dense_table():
    entries, width, rank, tokens = 60_000, 512, 32, 16
    model = TiedModel(entries, width, rank)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ids = torch.arange(tokens).view(1, tokens)
    with LargestOutput() as largest:
        loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
        loss.backward()
        optimizer.step()
    assert largest.numbers == entries * rank < entries * width / 4  # logits are half of that
    assert math.isfinite(loss.item())
    with LargestOutput() as dense:
        model.output.dense_weight()
    assert dense.numbers == entries * width
