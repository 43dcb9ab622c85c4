"""``--autocast-dtype auto``: what it is on which device, that it is told, and that a resumed training is told."""

import argparse
import logging
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary
from torch import nn

from fairseq_compress.functional import autocast
from fairseq_compress.functional.autocast import has_instructions, native_autocast, warn_if_emulated
from fairseq_compress.tasks.compressed_translation import CompressedTranslationConfig, CompressedTranslationTask


@pytest.mark.parametrize(
    ("instructions", "native"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True, "amx_tile": True}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": False}, False),
        ({"neon": True, "bf16": True}, True),
    ],
)
def test_which_processors_multiply_bfloat16(instructions, native):
    assert has_instructions(SimpleNamespace(get_capabilities=lambda: instructions)) is native


@pytest.mark.parametrize(("bfloat16", "amx", "native"), [(0, 0, False), (1, 0, True), (0, 1, True)])
def test_older_versions_of_torch_tell_by_other_functions(bfloat16, amx, native):
    cpu = SimpleNamespace(_is_avx512_bf16_supported=lambda: bool(bfloat16), _is_amx_tile_supported=lambda: bool(amx))
    assert has_instructions(cpu) is native
    assert has_instructions(SimpleNamespace()) is False


def test_this_processor_is_asked(monkeypatch):
    assert native_autocast("cpu") == ("bfloat16" if has_instructions(torch.cpu) else "none")
    assert native_autocast("meta") == "none"


@pytest.fixture(params=[True, False], ids=["native", "emulated"])
def native(request, monkeypatch):
    monkeypatch.setattr(autocast, "multiplies_bfloat16", lambda device: request.param)
    warn_if_emulated.cache_clear()
    yield request.param
    warn_if_emulated.cache_clear()


def task(dtype):
    return CompressedTranslationTask(CompressedTranslationConfig(autocast_dtype=dtype), Dictionary(), Dictionary())


def product(of, model, seen):
    """A training step whose criterion notes the type of the product."""
    sample = {"net_input": {"src_tokens": torch.zeros(1, 2, dtype=torch.long)}}

    def criterion(model, sample):
        seen.append(model(torch.ones(1, 2, dtype=model.weight.dtype)).dtype)
        return model.weight.sum(), 1, {}

    optimizer = argparse.Namespace(backward=lambda loss: None)
    model.set_num_updates = lambda updates: None
    of.train_step(sample, model, criterion, optimizer, 0)


def test_auto_is_resolved_told_once_and_kept(native, caplog):
    caplog.set_level(logging.INFO)
    found, seen = task("auto"), []
    for _ in range(2):
        product(found, nn.Linear(2, 2), seen)
    chosen = "bfloat16" if native else "none"
    assert seen == [torch.bfloat16 if native else torch.float32] * 2
    assert [record.message for record in caplog.records] == [f"--autocast-dtype auto: {chosen} on this cpu"]
    assert found.resolved_options == {"autocast_dtype": chosen}
    assert found.state_dict() == {"autocast_dtype": chosen}


def test_auto_leaves_weights_of_another_type_alone(native):
    found, seen = task("auto"), []
    product(found, nn.Linear(2, 2).bfloat16(), seen)
    assert seen == [torch.bfloat16]
    assert found.resolved_options == {"autocast_dtype": "none"}


def test_emulated_bfloat16_is_warned_of_once(native, caplog):
    found, seen = task("bfloat16"), []
    for _ in range(2):
        product(found, nn.Linear(2, 2), seen)
    assert seen == [torch.bfloat16] * 2
    warning = (
        "--autocast-dtype bfloat16: this processor has no bfloat16 instructions and emulates it, up to 20 times "
        "slower; use auto or none"
    )
    assert [record.message for record in caplog.records] == ([] if native else [warning])


@pytest.mark.parametrize("before", ["bfloat16", "none"])
def test_a_training_that_goes_on_in_another_type_says_so(native, before, caplog):
    resumed, chosen = task("auto"), "bfloat16" if native else "none"
    resumed.load_state_dict({"autocast_dtype": before})
    for _ in range(2):
        product(resumed, nn.Linear(2, 2), [])
    told = [] if before == chosen else [f"--autocast-dtype: {chosen} from here, this training had {before} so far"]
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == told


def test_none_is_silent_and_resolves_nothing(native, caplog):
    found, seen = task("none"), []
    product(found, nn.Linear(2, 2), seen)
    assert seen == [torch.float32]
    assert found.resolved_options == {}
    assert caplog.records == []
