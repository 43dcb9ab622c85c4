"""Criterion sequence_level_kd on small models, against a loop in float64, one hypothesis after the other."""

import argparse
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq import models
from fairseq.data import Dictionary
from torch import Tensor, nn

from fairseq_compress.criterions.sequence_level_kd import SequenceLevelKDConfig, SequenceLevelKDCriterion
from fairseq_compress.errors import ConfigError

PAD, EOS, VOCABULARY = 1, 2, 40
DICTIONARY = Dictionary()
for number in range(VOCABULARY - len(DICTIONARY)):
    DICTIONARY.add_symbol(f"w{number}")

SOURCES = [[5, 6, 7, 8, EOS], [9, 10, EOS], [11, EOS]]  # longest first, as fairseq's batches have them
HYPOTHESES = [
    [[12, 13, 14, EOS], [12, 15, EOS], [16, 17, 18, 19, 20, EOS]],
    [[21, EOS]],
    [[22, 23, EOS], [EOS]],
]
WEIGHTS = [[0.5, 0.3, 0.2], [1.0], [0.75, 0.25]]


def make_model(architecture: str = "transformer_small") -> nn.Module:
    """A small model in float64 without dropout."""
    small = {
        "encoder_layers": 2, "decoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "dropout": 0.0,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "share_all_embeddings": architecture != "lstm",
        "decoder_embed_dim": 16, "decoder_hidden_size": 16, "decoder_out_embed_dim": 16, "encoder_hidden_size": 16,
    }  # fmt: skip
    torch.manual_seed(5)
    task = SimpleNamespace(source_dictionary=DICTIONARY, target_dictionary=DICTIONARY)
    return models.build_model(argparse.Namespace(arch=architecture, criterion="any", **small), task).double()


def make_criterion(**options: Any) -> SequenceLevelKDCriterion:
    cfg = SequenceLevelKDConfig(**({"sentence_avg": False} | options))
    task_cfg = SimpleNamespace(data="bin", num_batch_buckets=0)
    task = SimpleNamespace(target_dictionary=DICTIONARY, cfg=task_cfg, wrap_datasets=lambda wrap: None)
    return SequenceLevelKDCriterion(cfg, task)


def pad(rows: list[list[int]], left: bool, extra: int = 0) -> Tensor:
    width = max(map(len, rows)) + extra
    fill = [[PAD] * (width - len(row)) for row in rows]
    return torch.tensor([empty + row if left else row + empty for empty, row in zip(fill, rows, strict=True)])


def make_sample(places: list[int], k: int | None = None, extra: int = 0) -> dict[str, Any]:
    """A batch of some of the sources, as KBestDataset makes it."""
    sources = [SOURCES[place] for place in places]
    hypotheses = [ids for place in places for ids in HYPOTHESES[place][:k]]
    weights = [weight / sum(WEIGHTS[place][:k]) for place in places for weight in WEIGHTS[place][:k]]
    counts = torch.tensor([len(HYPOTHESES[place][:k]) for place in places])
    best = pad([HYPOTHESES[place][0] for place in places], left=False)
    inputs = pad([[EOS, *ids[:-1]] for ids in hypotheses], left=False, extra=extra)
    return {
        "net_input": {
            "src_tokens": pad(sources, left=True, extra=extra),
            "src_lengths": torch.tensor([len(ids) for ids in sources]),
            "prev_output_tokens": pad([[EOS, *HYPOTHESES[place][0][:-1]] for place in places], left=False),
        },
        "target": best,
        "ntokens": int(best.ne(PAD).sum()),
        "k_best": {
            "target": pad(hypotheses, left=False, extra=extra),
            "prev_output_tokens": inputs,
            "sources": torch.arange(len(places)).repeat_interleave(counts),
            "weights": torch.tensor(weights, dtype=torch.float64),
            "ntokens": sum(map(len, hypotheses)),
            "weighted_ntokens": sum(weight * len(ids) for weight, ids in zip(weights, hypotheses, strict=True)),
        },
    }


def slow_losses(model: nn.Module, source: list[int], hypothesis: list[int], epsilon: float) -> tuple[Tensor, float]:
    """Label-smoothed and plain loss of one hypothesis, token by token, with nothing else in the batch."""
    logits = model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([[EOS, *hypothesis[:-1]]]))[0][0]
    loss, nll = torch.zeros((), dtype=torch.float64), 0.0
    for position, token in enumerate(hypothesis):
        normalizer = sum(math.exp(value) for value in logits[position].tolist())
        nll += math.log(normalizer) - logits[position, token].item()
        log_probabilities = logits[position].log_softmax(dim=0)
        share = epsilon / (VOCABULARY - 1)
        loss = loss - (1 - epsilon - share) * log_probabilities[token] - share * log_probabilities.sum()
    return loss, nll


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("loss_from", ["hidden", "logits"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_loss_and_gradient_against_a_loop(epsilon: float, loss_from: str) -> None:
    """Also: the gradient of K-best is the sum of the weighted gradients of K separate runs."""
    model = make_model()
    loss, sample_size, log = make_criterion(label_smoothing=epsilon, loss_from=loss_from)(model, make_sample([0, 1, 2]))
    ours = gradients(model, loss)
    expected, nll, tokens, theirs = 0.0, 0.0, 0.0, {}
    for source, hypotheses, weights in zip(SOURCES, HYPOTHESES, WEIGHTS, strict=True):
        for hypothesis, weight in zip(hypotheses, weights, strict=True):
            one, one_nll = slow_losses(model, source, hypothesis, epsilon)
            expected, nll = expected + weight * one.item(), nll + weight * one_nll
            tokens += weight * len(hypothesis)
            for name, gradient in gradients(model, one).items():
                theirs[name] = theirs.get(name, 0) + weight * gradient
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert log["nll_loss"].item() == pytest.approx(nll, rel=1e-12)
    assert sample_size == log["weighted_ntokens"] == pytest.approx(tokens)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-9, atol=1e-12, msg=name)


def test_uniform_predictions_by_hand() -> None:
    """A model that knows nothing: log V for each of 0.5 · 4 + 0.3 · 3 + 0.2 · 6 + 2 + 0.75 · 3 + 0.25 · 1 tokens."""
    model = make_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for epsilon in (0.0, 0.1):
        loss, sample_size, log = make_criterion(label_smoothing=epsilon)(model, make_sample([0, 1, 2]))
        assert sample_size == pytest.approx(8.6)
        assert loss.item() == pytest.approx(8.6 * math.log(VOCABULARY))
        assert (log["ntokens"], log["nsentences"], log["nhypotheses"]) == (19, 3, 6)


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")  # fairseq's call
@pytest.mark.parametrize("architecture", ["transformer_small", "transformer", "lstm"])
def test_one_encoder_pass_for_all_hypotheses(architecture: str) -> None:
    model = make_model(architecture)
    seen: dict[str, list[int]] = {"encoder": [], "decoder": []}
    model.encoder.register_forward_pre_hook(
        lambda module, inputs, named: seen["encoder"].append((*inputs, *named.values())[0].size(0)), with_kwargs=True
    )
    model.decoder.register_forward_pre_hook(lambda module, inputs: seen["decoder"].append(inputs[0].size(0)))
    loss, _, _ = make_criterion()(model, make_sample([0, 1, 2]))
    assert seen == {"encoder": [3], "decoder": [6]}
    hooks = len(model.encoder._forward_hooks)
    assert hooks == 0
    expected = sum(
        weight * slow_losses(model, source, hypothesis, 0.0)[1]
        for source, hypotheses, weights in zip(SOURCES, HYPOTHESES, WEIGHTS, strict=True)
        for hypothesis, weight in zip(hypotheses, weights, strict=True)
    )
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_the_hook_goes_when_the_model_fails() -> None:
    model = make_model()
    sample = make_sample([0, 1, 2])
    sample["k_best"]["prev_output_tokens"] = sample["k_best"]["prev_output_tokens"] + VOCABULARY
    with pytest.raises(IndexError):
        make_criterion()(model, sample)
    assert len(model.encoder._forward_hooks) == 0


def test_padding_and_the_cut_of_batches_do_not_matter() -> None:
    model, criterion = make_model(), make_criterion(label_smoothing=0.1)
    whole, size, _ = criterion(model, make_sample([0, 1, 2]))
    padded, padded_size, _ = criterion(model, make_sample([0, 1, 2], extra=3))
    pieces = [criterion(model, make_sample(places)) for places in ([0, 2], [1])]
    assert padded.item() == pytest.approx(whole.item(), rel=1e-12)
    assert sum(piece[0].item() for piece in pieces) == pytest.approx(whole.item(), rel=1e-12)
    assert padded_size == size == pytest.approx(sum(piece[1] for piece in pieces))
    one, other = gradients(model, whole), gradients(model, padded)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=1e-12, msg=name)


def test_one_hypothesis_is_plain_training_bit_by_bit() -> None:
    model, criterion = make_model().float(), make_criterion(label_smoothing=0.1)
    sample = make_sample([0, 1, 2], k=1)
    ours = criterion(model, sample)
    del sample["k_best"]
    plain = criterion(model, sample)  # what a validation split without hypotheses gets
    assert ours[0].item() == plain[0].item()
    assert ours[1] == plain[1] == sample["ntokens"] == 9
    one, other = gradients(model, ours[0]), gradients(model, plain[0])
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_sample_size_of_sentences() -> None:
    _, sample_size, _ = make_criterion(sentence_avg=True)(make_model(), make_sample([0, 1, 2]))
    assert sample_size == 3


def test_options_are_checked_all_at_once() -> None:
    with pytest.raises(
        ConfigError, match=r"--label-smoothing: .* got 1.0; --sequence-kd-temperature: .* got 0; --k-best: .* got 0"
    ):
        make_criterion(sequence_kd_temperature=0, k_best=0, label_smoothing=1.0)
    with pytest.raises(ConfigError, match=r"--sequence-kd-temperature: must be in \(0, inf\), got nan"):
        make_criterion(sequence_kd_temperature=math.nan)
    with pytest.raises(ConfigError, match=r"--sequence-kd-temperature: must be in \(0, inf\), got inf"):
        make_criterion(sequence_kd_temperature=math.inf)


def test_a_model_without_an_encoder() -> None:
    with pytest.raises(ConfigError, match="needs an encoder-decoder model, got Linear"):
        make_criterion()(nn.Linear(1, 1), make_sample([0]))
