"""The registered model against fairseq's transformer with equal weights."""

import argparse
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq import models
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY, FairseqEncoderDecoderModel, import_models
from fairseq.models.transformer import TransformerModel
from fairseq.modules import FairseqDropout
from fairseq.sequence_generator import SequenceGenerator, SequenceGeneratorWithAlignment
from torch import Tensor, nn

import fairseq_compress.models as our_models
from fairseq_compress.errors import ConfigError
from fairseq_compress.models.compressed_transformer import CompressedTransformerModel, register_new_model
from fairseq_compress.models.presets import PRESETS

PAD, EOS = 1, 2


DICTIONARY = Dictionary()
for number in range(60 - len(DICTIONARY)):
    DICTIONARY.add_symbol(f"w{number}")
TASK = SimpleNamespace(source_dictionary=DICTIONARY, target_dictionary=DICTIONARY)


def make_model(architecture: str, **values: Any) -> nn.Module:
    """A small model without dropout; the same seed gives both architectures the same weights."""
    small = {
        "encoder_layers": 2, "decoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 48,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "dropout": 0.0, "share_all_embeddings": True,
    }  # fmt: skip
    torch.manual_seed(5)
    model = models.build_model(argparse.Namespace(arch=architecture, **(small | values)), TASK)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zeros at the start would hide a bias that is not used
                parameter.normal_(std=0.3)
    return model


def make_pair(**values: Any) -> tuple[nn.Module, nn.Module]:
    return make_model("transformer_small", **values), make_model("transformer", **values)


def make_batch(side: str, length: int = 7, batch: int = 4) -> tuple[Tensor, Tensor]:
    """Source and target ``(B, T)`` with 0, 1, 2, 3 paddings on a side, and no two sentences alike."""
    generator = torch.Generator().manual_seed(7)
    rows = []
    for extra in (2, 0):
        tokens = torch.randint(4, 60, (batch, length + extra), generator=generator)
        for row in range(batch if side != "none" else 0):
            tokens[row, length + extra - row :] = PAD
        rows.append(torch.stack([row.roll(int(row.eq(PAD).sum())) for row in tokens]) if side == "left" else tokens)
    return rows[0], rows[1]


def lengths(tokens: Tensor) -> Tensor:
    return tokens.ne(PAD).sum(dim=1)


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")  # fairseq's call
@pytest.mark.parametrize("normalize_before", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_teacher_forced_logits_and_gradients_equal_fairseq(side: str, training: bool, normalize_before: bool) -> None:
    source, target = make_batch(side)
    logits, gradients = [], []
    for model in make_pair(encoder_normalize_before=normalize_before, decoder_normalize_before=normalize_before):
        output, _ = model.train(training)(source, lengths(source), target)
        output = output[target.ne(PAD)]
        torch.log_softmax(output, dim=-1)[:, 10].sum().backward()
        logits.append(output)
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert (logits[0] - logits[1]).abs().max() < 1e-5
    for name, own in gradients[0].items():
        # A bias of the keys moves all scores of a query alike: its exact gradient is 0, and what is there is rounding.
        scale = gradients[1][name.replace("k_proj.bias", "k_proj.weight")].abs().max()
        assert (own - gradients[1][name]).abs().max() <= 1e-4 * scale, name


@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_every_incremental_step_equals_fairseq_and_the_teacher_forced_logits(side: str) -> None:
    source, _ = make_batch(side)
    target = make_batch("none")[1]
    steps = []
    with torch.no_grad():
        for model in make_pair():
            model.eval()
            encoder_out, state = model.encoder(source, lengths(source)), {}
            step = [model.decoder(target[:, : t + 1], encoder_out, state)[0] for t in range(target.size(1))]
            steps.append(torch.cat(step, dim=1))
            whole, _ = model(source, lengths(source), target)
            assert (steps[-1] - whole).abs().max() < 1e-5
    assert (steps[0] - steps[1]).abs().max() < 1e-5


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_beam_search_finds_the_sentences_of_fairseq(side: str, fast: bool) -> None:
    source, _ = make_batch(side)
    found = []
    for model in make_pair():
        if fast:
            model.make_generation_fast_()
        generator = SequenceGenerator([model], DICTIONARY, beam_size=5, max_len_a=0, max_len_b=12)
        sample = {"net_input": {"src_tokens": source, "src_lengths": lengths(source)}}
        found.append([hypothesis for beam in generator.generate([model], sample) for hypothesis in beam])
    assert len(found[0]) == 5 * len(source)
    for own, other in zip(*found, strict=True):
        assert torch.equal(own["tokens"], other["tokens"])
        torch.testing.assert_close(own["score"], other["score"], rtol=0, atol=1e-5)


def count_calls(model: nn.Module) -> dict[str, int]:
    """Calls of each attention projection from now on, by name."""
    calls = {name: 0 for name, _ in model.named_modules() if name.endswith("_proj")}
    for name in calls:

        def count(_: nn.Module, __: Any, ___: Any, name: str = name) -> None:
            calls[name] += 1

        model.get_submodule(name).register_forward_hook(count)
    return calls


@pytest.mark.parametrize("training", [True, False])
def test_every_projection_is_called_as_a_module_in_teacher_forcing(training: bool) -> None:
    ours, theirs = make_pair()
    source, target = make_batch("right")
    calls = count_calls(ours)
    ours.train(training)(source, lengths(source), target)
    assert len(calls) == 4 * 2 + 8 * 2
    assert set(calls.values()) == {1}
    calls = count_calls(theirs)  # why we have our own attention
    theirs.train(training)(source, lengths(source), target)
    assert 0 in calls.values()


def test_every_projection_is_called_as_a_module_in_beam_search() -> None:
    model = make_model("transformer_small")
    model.make_generation_fast_()
    calls = count_calls(model)
    generator = SequenceGenerator([model], DICTIONARY, beam_size=2, min_len=6, max_len_a=0, max_len_b=6)
    source, _ = make_batch("left")
    generator.generate([model], {"net_input": {"src_tokens": source, "src_lengths": lengths(source)}})
    steps = calls["decoder.layers.0.self_attn.q_proj"]
    assert steps > 5
    for name, count in calls.items():
        once = name.startswith("encoder.") or "encoder_attn.k_proj" in name or "encoder_attn.v_proj" in name
        assert count == (1 if once else steps), name


def alignment_numbers(hypothesis: dict[str, Any]) -> list[float]:
    """Pairs of positions (hard) or rows of probabilities printed with six digits (soft), in one list."""
    return [float(number) for row in hypothesis["alignment"] for number in row]


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_alignments_equal_those_of_fairseq(kind: str) -> None:
    source, target = make_batch("left")
    sample = {"net_input": {"src_tokens": source, "src_lengths": lengths(source)}, "target": target}
    found = []
    for model in make_pair():
        model.make_generation_fast_(need_attn=kind)
        generator = SequenceGeneratorWithAlignment(
            [model], DICTIONARY, beam_size=3, max_len_a=0, max_len_b=9, print_alignment=kind
        )
        found.append([hypothesis for beam in generator.generate([model], sample) for hypothesis in beam])
    for own, other in zip(*found, strict=True):
        assert alignment_numbers(own) == pytest.approx(alignment_numbers(other), abs=2e-6)
        torch.testing.assert_close(own["attention"], other["attention"], rtol=0, atol=1e-5)


def test_attention_maps_come_only_when_asked_for() -> None:
    ours, theirs = make_pair()
    source, target = make_batch("right")
    for model in (ours, theirs):
        model.eval()
    assert ours(source, lengths(source), target)[1]["attn"] == [None]
    for asked in ({"alignment_layer": 0}, {"alignment_heads": 2}, {"alignment_layer": 1, "alignment_heads": 1}):
        own, other = (model(source, lengths(source), target, **asked)[1]["attn"][0] for model in (ours, theirs))
        torch.testing.assert_close(own, other, rtol=0, atol=1e-5)


def test_state_dicts_load_both_ways() -> None:
    ours, theirs = make_pair()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for source, goal in ((ours, theirs), (theirs, ours)):
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.normal_()
        goal.load_state_dict(source.state_dict(), strict=True)
        assert all(torch.equal(value, goal.state_dict()[key]) for key, value in source.state_dict().items())


def test_the_same_seed_gives_the_initial_weights_of_fairseq() -> None:
    states = []
    for name in ("compressed_transformer", "transformer"):
        torch.manual_seed(11)
        states.append(models.build_model(argparse.Namespace(arch=name, encoder_layers=1, decoder_layers=1), TASK))
    for own, other in zip(*[model.state_dict().values() for model in states], strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [True, False])
def test_low_precision_runs_and_is_near(dtype: torch.dtype, autocast: bool) -> None:
    model = make_model("transformer_small").eval()
    source, target = make_batch("left")
    expected = model(source, lengths(source), target)[0]
    with torch.autocast("cpu", dtype, enabled=autocast):
        output = (model if autocast else model.to(dtype))(source, lengths(source), target)[0]
    output.float().square().mean().backward()
    real = target.ne(PAD)
    assert (output.float() - expected)[real].abs().max() < 0.1 * expected.abs().max()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_activation_checkpointing_changes_no_gradient() -> None:
    source, target = make_batch("right")
    gradients = []
    for checkpointing in (False, True):
        model = make_model("transformer_small", checkpoint_activations=checkpointing).train()
        model(source, lengths(source), target)[0].square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'transformer': already registered for another class.*TransformerModel"):

        @register_new_model("transformer")
        class Other(FairseqEncoderDecoderModel):
            pass

    assert ARCH_MODEL_REGISTRY["transformer"] is TransformerModel


def test_a_second_import_by_fairseq_is_harmless() -> None:
    import_models(our_models.__path__[0], "fairseq_compress.models")  # what --user-dir does
    for name in [*PRESETS, "compressed_transformer"]:
        assert ARCH_MODEL_REGISTRY[name] is CompressedTransformerModel
        assert name in ARCH_CONFIG_REGISTRY


def test_dropout_modules_have_the_names_of_fairseq() -> None:
    own, other = (
        {name: m.module_name for name, m in model.named_modules() if isinstance(m, FairseqDropout)}
        for model in make_pair()
    )
    assert own == other
