"""Tensor-train embedding and output against their dense table, ties, generation, and what a training step allocates."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layers import tensor_train
from fairseq_compress.functional.layers.tensor_train import tt_shapes
from fairseq_compress.modules.structured import relative_error, structured_modules
from fairseq_compress.modules.tensor_train_embedding import TensorTrainEmbedding
from fairseq_compress.modules.tensor_train_output import TensorTrainOutput

V, D, R, PAD = 21, 12, 3, 1
IDS = torch.tensor([[4, 7, 4, PAD], [0, 20, PAD, PAD]])


class TiedModel(nn.Module):
    """As a transformer with one table: two embeddings that are one, and the output."""

    def __init__(self, entries=V, width=D, rank=R, **modes):
        super().__init__()
        self.encoder = self.decoder = TensorTrainEmbedding(entries, width, PAD, rank, **modes)
        self.output = TensorTrainOutput(self.encoder)

    def forward(self, ids):
        return self.output(self.encoder(ids).tanh())

    def make_generation_fast_(self):
        for module in structured_modules(self).values():
            module.make_generation_fast_(name="", need_attn=False)
        return self.eval()


class LargestResult(TorchDispatchMode):
    """Remembers the most numbers of a tensor that any operation made, among those of other than the spared shape."""

    def __init__(self, spared=None):
        super().__init__()
        self.spared, self.numbers = spared, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and tuple(t.shape) != self.spared]
        self.numbers = max([self.numbers, *(tensor.numel() for tensor in made)])
        return result


@pytest.fixture
def model():
    torch.manual_seed(1)
    return TiedModel().double()


def loss_of(logits, ids=IDS):
    return F.cross_entropy(logits.flatten(0, 1), ids.flatten(), ignore_index=PAD)


def dense_step(model, ids=IDS):
    """The loss of a dense tied model with the same table."""
    table = model.encoder.dense_weight()
    return loss_of(F.linear(F.embedding(ids, table, PAD).tanh(), table), ids)


def gradients(model):
    found = [core.grad.clone() for core in model.encoder.cores]
    model.zero_grad()
    return found


def test_a_tied_model_and_its_gradients_are_those_of_the_dense_table(model):
    torch.testing.assert_close(model.encoder(IDS), F.embedding(IDS, model.encoder.dense_weight()))
    loss = loss_of(model(IDS))
    loss.backward()
    ours = gradients(model)
    expected = dense_step(model)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours, gradients(model))


def test_padding_is_zero_and_gives_no_gradient(model):
    rows = model.encoder(torch.tensor([PAD, PAD]))
    logits = model.output(torch.ones(3, D, dtype=torch.float64))[..., PAD]
    assert not rows.any()
    assert not logits.any()
    (rows.sum() + logits.sum()).backward()
    assert not any(core.grad.any() for core in model.encoder.cores)
    assert not model.encoder.dense_weight()[PAD].any()
    assert TensorTrainEmbedding(V, D, None, R).dense_weight()[PAD].all()


def test_ids_out_of_range_raise_though_the_cores_have_rows_for_them(model):
    assert math.prod(model.encoder.entry_modes) > V
    with pytest.raises(IndexError, match=f"ids: must be from 0 to {V - 1}, got {V}"):
        model.encoder(torch.tensor([[0, V]]))


def test_entries_start_with_the_deviation_of_a_dense_embedding():
    torch.manual_seed(3)
    deviations = [TensorTrainEmbedding(3000, 64, PAD, rank).dense_weight().std().item() for rank in (4, 16, 16)]
    assert all(0.75 < each * 64**0.5 < 1.3 for each in deviations)


def test_names_that_fairseq_reads_and_what_print_tells(model):
    embedding, output = model.encoder, model.output
    assert (embedding.num_embeddings, embedding.embedding_dim, embedding.padding_idx) == (V, D, PAD)
    assert (output.in_features, output.out_features, output.bias) == (D, V, None)
    assert "21, 12, padding_idx=1, modes=(3·3·3) x (3·2·2), ranks=[3, 3], 99 numbers for 252" in repr(embedding)
    assert "in_features=12, out_features=21, rank=3, tied" in repr(output)
    assert embedding.multiply_adds == 6 * 9 + 12 * 3  # x (3, r) by G_2 (r, 2 r), then (6, r) by G_3 (r, 2)
    assert output.multiply_adds == D * V
    assert TensorTrainOutput(TensorTrainEmbedding(1000, 64, PAD, 1)).multiply_adds == 640 + 1600 + 4000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"--tensor-train-rank: must be in .1, inf., got 0"),
        ({"entry_modes": (5, 5)}, "--tensor-train-modes: must be as many .* 3 or more, got .5·5. x .4·3."),
        ({"entry_modes": (3, 3, 3), "width_modes": (3, 4)}, "--tensor-train-modes: must be as many .* x .3·4."),
        ({"entry_modes": (2, 2, 5)}, "--tensor-train-modes: products must be 21 or more of entries, 12 of width"),
        ({"width_modes": (2, 2, 5)}, "--tensor-train-modes: products must be .* got .3·3·3. x .2·2·5."),
        ({"entry_modes": (-7, -3, 1)}, "--tensor-train-modes: products must be"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TensorTrainEmbedding(V, D, PAD, **({"rank": R} | options))


def test_modes_that_are_given_are_taken():
    embedding = TensorTrainEmbedding(V, D, PAD, 2, entry_modes=(2, 2, 2, 3), width_modes=(1, 3, 2, 2))
    assert [tuple(core.shape) for core in embedding.cores] == tt_shapes((2, 2, 2, 3), (1, 3, 2, 2), 2)
    torch.testing.assert_close(embedding(torch.arange(V)), embedding.dense_weight())


def test_a_state_dict_restores_the_layers_and_tells_the_entries(model):
    state = model.state_dict()
    names = {f"{part}.cores.{k}" for part in ("encoder", "decoder", "output") for k in range(3)}
    assert set(state) == names | {"encoder.entries", "decoder.entries"}
    assert int(state["encoder.entries"]) == V
    other = TiedModel().double()
    other.load_state_dict(state)
    assert torch.equal(other.output.dense_weight(), model.encoder.dense_weight())
    assert other.output.cores[0] is other.encoder.cores[0]
    with pytest.raises(RuntimeError, match=r"encoder\.entries: must be 22, got 21 in the state dict"):
        TiedModel(entries=22).double().load_state_dict(state)


def test_a_dense_state_loads_by_svd_under_every_name_alike(model):
    table = torch.randn(V, D, dtype=torch.float64)
    table[PAD] = 0
    names = ("encoder.weight", "decoder.weight", "output.weight")
    each = [model.output.approximation(table), model.encoder.approximation(table)]
    assert all(torch.equal(each[0][name], each[1][name]) for name in each[0])
    exact = TiedModel(rank=100).double()
    exact.load_state_dict(dict.fromkeys(names, table))
    torch.testing.assert_close(exact.output.dense_weight(), table, rtol=0, atol=1e-12)
    model.load_state_dict(dict.fromkeys(names, table))
    assert 0.1 < relative_error(model.encoder, table) < 1
    assert relative_error(model.output, table) == relative_error(model.encoder, table)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict(dict.fromkeys(names, table[1:]))


@torch.no_grad()
def test_generation_keeps_one_table_that_says_the_same(model):
    expected, state = model(IDS), set(model.state_dict())
    model.make_generation_fast_()
    torch.testing.assert_close(model(IDS), expected)
    kept = model.encoder.kept_table()
    assert model.output.embedding.kept_table() is kept
    assert set(model.state_dict()) == state
    watcher = LargestResult(spared=(D, V))  # the view of the table that F.linear takes
    with watcher:
        model(IDS)
    assert watcher.numbers == IDS.numel() * V  # the logits; no table is made again
    assert model.encoder.kept_table() is kept
    twin = copy.deepcopy(model)
    assert twin.output.embedding is twin.encoder
    torch.testing.assert_close(twin(IDS), expected)


def test_the_kept_table_follows_the_cores_and_ends_with_training(model):
    model.make_generation_fast_()
    with torch.no_grad():
        before = model(IDS)
        model.encoder.cores[0].mul_(2)
        torch.testing.assert_close(model.encoder(IDS), F.embedding(IDS, model.encoder.dense_weight()))
        assert not torch.equal(model(IDS), before)
    assert model.encoder.kept_table() is None  # a gradient is wanted
    loss_of(model(IDS)).backward()
    assert all(core.grad.any() for core in model.encoder.cores)
    model.output.train()
    with torch.no_grad():
        assert model.encoder.kept_table() is None


def test_autocast_gives_the_types_of_dense_layers():
    torch.manual_seed(1)
    model = TiedModel()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows, logits = model.encoder(IDS), model(IDS)
    assert (rows.dtype, logits.dtype) == (torch.float32, torch.bfloat16)
    loss_of(logits.float()).backward()
    ours = gradients(model)
    dense_step(model).backward()
    for found, expected in zip(ours, gradients(model), strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("by_table", [True, False])
def test_a_training_step_never_makes_the_table(by_table, monkeypatch):
    monkeypatch.setattr(tensor_train, "logits_multiply_adds", lambda *_: (1, 0) if by_table else (0, 1))
    entries, width, tokens = 60000, 512, 32
    model, ids = TiedModel(entries, width, 16), torch.arange(tokens).unsqueeze(0) * 1900
    watcher = LargestResult()
    with watcher:
        loss_of(model(ids), ids).backward()
    assert tokens * entries <= watcher.numbers < entries * width / 4
    with watcher, torch.no_grad():
        table = model.output.dense_weight()
    assert watcher.numbers >= entries * width
    watcher = LargestResult()
    with watcher:  # it sees what a backward pass makes
        F.embedding(ids, table.requires_grad_()).sum().backward()
    assert watcher.numbers == entries * width
