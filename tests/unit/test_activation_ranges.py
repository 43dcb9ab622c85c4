"""Ranges of quantized activations: padding does not count, and an average goes one step an update."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from test_models import PAD, lengths, make_model
from torch import nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.quantization.magnitudes import Magnitudes
from fairseq_compress.modules.activation_quantizer import ActivationQuantizer, step_ranges
from fairseq_compress.modules.positions import Positions, current, unobserved, within
from fairseq_compress.tasks.compressed_translation import CompressedTranslationTask
from fairseq_compress.weights.attach import attach_plan
from fairseq_compress.weights.rules import ActivationRule, Plan
from tests.helpers.structures import KINDS, TASK, make

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
TRAINING = Positions(observed=True)


def quantized(model, decay=0.5, modules="*"):
    attach_plan(Plan((), (ActivationRule((modules,), decay=decay),)), model)
    return model


def quantizers(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, ActivationQuantizer)}


def observe(quantizer, *values):
    with within(TRAINING):
        quantizer(torch.tensor([values], requires_grad=True))


def test_the_average_of_ranges_by_hand():
    quantizer = ActivationQuantizer(bits=8, decay=0.9).train()
    for batches, expected in (([2.0], 2.0), ([1.0, 3.0, 2.0], 2.1), ([-1.0], 1.99)):
        for value in batches:
            observe(quantizer, 0.5, value)
        step_ranges(quantizer)
        assert quantizer.largest.item() == pytest.approx(expected)
    step_ranges(quantizer)  # an update without a forward pass
    quantizer.eval()(torch.tensor([[9.0]]))
    step_ranges(quantizer)
    assert quantizer.largest.item() == pytest.approx(1.99)
    assert quantizer(torch.tensor([[9.0]])).item() == pytest.approx(1.99)
    assert json.loads(json.dumps(str(quantizer))) == "ActivationQuantizer(bits=8, decay=0.9, largest=1.99)"
    assert copy.deepcopy(quantizer).largest.item() == pytest.approx(1.99)
    assert list(quantizer.state_dict()) == ["largest"]


def test_what_is_no_training_forward_and_a_repeated_update_do_not_count():
    quantizer = ActivationQuantizer(decay=0.5).train()
    observe(quantizer, 2.0)
    step_ranges(quantizer)
    quantizer(torch.tensor([[9.0]], requires_grad=True))  # as in the second pass of activation checkpointing
    step_ranges(quantizer)
    assert quantizer.largest == 2
    observe(quantizer, 4.0)
    step_ranges(quantizer, again=True)
    step_ranges(quantizer)
    assert quantizer.largest == 2


def test_of_positions():
    x = torch.tensor([[[1.0], [2.0]], [[3.0], [9.0]], [[4.0], [8.0]]])  # (3, 2, 1)
    positions = Positions(torch.tensor([[True, True, True], [True, False, False]]))  # of two sentences
    assert positions.of(x, time_first=True).flatten().tolist() == [1, 2, 3, 4]
    assert positions.of(x.transpose(0, 1), time_first=False).flatten().tolist() == [1, 3, 4, 2]
    assert positions.largest(x, time_first=True) == 4
    assert positions.largest(x[:1], time_first=True) == 2  # another shape: everything counts
    square = Positions(torch.tensor([[True, True], [True, False]]))
    rows = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    assert square.largest(rows, time_first=True) == square.largest(rows, time_first=False) == 3
    square = Positions(torch.tensor([[True, False], [True, True]]))
    assert square.of(rows, time_first=True).flatten().tolist() == [1, 2, 4]
    assert square.of(rows, time_first=False).flatten().tolist() == [1, 3, 4]
    assert Positions().of(rows, time_first=True) is rows
    assert current() == Positions()


def largest_of_tokens(model, source, target):
    """The oracle: max |x| of every linear layer over sentences one by one, without any padding."""
    found = {}

    def note(name):
        return lambda module, inputs: found.update({name: max(found.get(name, 0), inputs[0].abs().max().item())})

    hooks = [
        module.register_forward_pre_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    for row, own in zip(source, target, strict=True):
        row, own = row[row.ne(PAD)][None], own[own.ne(PAD)][None]
        model(row, lengths(row), own)
    for hook in hooks:
        hook.remove()
    return found


MODELS = {
    "ours": lambda: make_model("transformer_small"),
    "stock": lambda: make_model("transformer"),
    **{kind: lambda values=values: make(**values) for kind, values in KINDS.items()},
}


def padded_batch(batch, length=7):
    """Source, padded on the left, and target, padded on the right, with 0 to 3 paddings in each row."""
    draw = torch.Generator().manual_seed(7)
    source, target = (torch.randint(4, 30, (batch, length), generator=draw) for _ in range(2))
    for row in range(batch):
        source[row, : row % 4] = PAD
        target[row, length - (row + 1) % 4 :] = PAD
    return source, target


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("batch", [4, 7])  # 7: as many sentences as tokens, so that shapes do not tell the layout
def test_padding_counts_in_no_range(kind, batch):
    """Percentiles and averages of every layer are those of sentences that were never padded."""
    source, target = padded_batch(batch)
    plain = MODELS[kind]().eval()
    expected = largest_of_tokens(plain, source, target)
    model = quantized(MODELS[kind](), modules="*.fc?" if kind == "stock" else "*")
    model.load_state_dict(plain.state_dict())
    for quantizer in quantizers(model).values():
        quantizer.watching = Magnitudes()
    model.eval()(source, lengths(source), target)
    found = {name.rpartition(".")[0]: each.watching.percentile(100) for name, each in quantizers(model).items()}
    assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-4)
    assert len(found) == len(quantizers(model)) > 0
    for quantizer in quantizers(model).values():
        quantizer.watching = None
    model.train()(source, lengths(source), target)
    step_ranges(model)
    found = {name.rpartition(".")[0]: each.largest.item() for name, each in quantizers(model).items()}
    assert found == pytest.approx({name: expected[name] for name in found}, rel=0.05)


@pytest.mark.parametrize("kind", MODELS)
def test_dynamic_ranges_do_not_depend_on_padding(kind):
    """The logits of a batch with more padding, and of a sentence alone, are those without."""
    source, target = padded_batch(4)
    model = quantized(MODELS[kind](), modules="*.fc?" if kind == "stock" else "*").eval()

    def logits(source, target):
        return model(source, lengths(source), target)[0]

    first = logits(source, target)
    wide, wider = (torch.full((4, extra), PAD) for extra in (5, 3))
    again = logits(torch.cat([wide, source], dim=1), torch.cat([target, wider], dim=1))[:, :7]
    torch.testing.assert_close(again[target.ne(PAD)], first[target.ne(PAD)], rtol=1e-4, atol=1e-4)
    row, own = source[:1], target[:1, :6]
    alone = logits(row, own)
    again = logits(torch.cat([wide[:1], row], dim=1), torch.cat([own, wider[:1]], dim=1))[:, :6]
    torch.testing.assert_close(again, alone, rtol=1e-4, atol=1e-4)


def gradients(model, *batches):
    model.zero_grad()
    for source, target in batches:
        model(source, lengths(source), target)[0][target.ne(PAD)].square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_activation_checkpointing_changes_nothing():
    """Two updates of two batches each: gradients and ranges, of the first update, which has no averages yet, too."""
    one, other = padded_batch(4), padded_batch(6)
    models = [quantized(make_model("transformer_small", checkpoint_activations=value)) for value in (False, True)]
    for _ in range(2):
        plain, checkpointed = (gradients(model.train(), one, other) for model in models)
        for name, gradient in plain.items():
            torch.testing.assert_close(checkpointed[name], gradient, msg=name)
        for model in models:
            step_ranges(model)
        plain, checkpointed = ([each.largest.item() for each in quantizers(model).values()] for model in models)
        assert plain == checkpointed


def test_one_step_an_update_however_a_batch_is_cut():
    source, target = padded_batch(8)
    whole, cut = (quantized(make_model("transformer_small")) for _ in range(2))
    for model, parts in ((whole, 1), (cut, 8)):
        for _ in range(3):
            gradients(model.train(), *zip(source.chunk(parts), target.chunk(parts), strict=True))
            step_ranges(model)
    found, other = ([each.largest.item() for each in quantizers(model).values()] for model in (whole, cut))
    assert found == pytest.approx(other, rel=0.05)  # the first update quantizes each input by its own range


def test_the_task_ends_updates_and_leaves_out_batches_of_nothing():
    """Two batches and a dummy batch in an update, then the optimizer's step: as fairseq's trainer calls the task."""
    task = CompressedTranslationTask(SimpleNamespace(), TASK.source_dictionary, TASK.target_dictionary)
    model = quantized(make(), decay=0.9)
    optimizer = SimpleNamespace(backward=lambda loss: loss.backward(), step=lambda: None)
    seen = []

    def criterion(model, sample):
        loss = model(**sample["net_input"])[0].square().mean()
        seen.append({name: each.seen.item() for name, each in quantizers(model).items()})
        return loss, 1, {}

    def step(scale, update, **options):
        source, target = padded_batch(3)
        model.encoder.embed_scale = scale
        sample = {"net_input": {"src_tokens": source, "src_lengths": lengths(source), "prev_output_tokens": target}}
        task.train_step(sample, model, criterion, optimizer, update, **options)

    ranges = []
    for update in range(2):
        step(1.0, update)
        step(2.0 - update, update)
        before = seen[-1]
        step(100.0, update, ignore_grad=True)
        assert seen[-1] == before
        task.optimizer_step(optimizer, model, update)
        ranges.append({name: each.largest.item() for name, each in quantizers(model).items()})
        if update == 0:
            assert ranges[0] == before
    assert ranges[1] == pytest.approx({name: 0.9 * value + 0.1 * before[name] for name, value in ranges[0].items()})
    step(1.0, 1)
    task.optimizer_step(optimizer, model, 1)  # --amp repeats an update
    assert {name: each.largest.item() for name, each in quantizers(model).items()} == ranges[1]


def test_beam_search_and_copies_know_the_padding():
    """Calls of ``forward`` itself, without hooks, and of a copy of the model."""
    source, target = padded_batch(4)
    seen = []
    model = quantized(make_model("transformer_small")).eval()
    for each in (model, copy.deepcopy(model)):
        each.encoder.layers[0].fc1.register_forward_pre_hook(lambda *_: seen.append(current().tokens))
        each.decoder.layers[0].fc1.register_forward_pre_hook(lambda *_: seen.append(current().tokens))
        net_input = {"src_tokens": source, "src_lengths": lengths(source), "prev_output_tokens": target}
        encoded = each.encoder.forward_torchscript(net_input)
        each.decoder.forward(target, encoder_out=encoded)
        each.decoder.forward(target[:, :3], encoder_out=encoded, incremental_state={})
        assert [tokens.tolist() for tokens in seen] == [
            source.ne(PAD).tolist(), target.ne(PAD).tolist(), target[:, 2:3].ne(PAD).tolist(),
        ]  # fmt: skip
        seen.clear()
    assert current() == Positions()


def test_nothing_is_observed_inside_of_unobserved():
    model = quantized(make()).train()
    source, target = padded_batch(3)
    with unobserved():
        gradients(model, (source, target))
    assert all(each.seen == 0 for each in quantizers(model).values())
    gradients(model, (source, target))
    assert all(each.seen > 0 for each in quantizers(model).values())


def test_a_model_without_encoder_and_decoder():
    with pytest.raises(ConfigError, match="requires a model with an encoder or a decoder"):
        quantized(nn.Sequential(nn.Linear(3, 3)))
