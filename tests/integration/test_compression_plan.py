"""Compression plans in fairseq's own commands: train, resume, start from a plain model, generate, average."""

import re

import pytest
import torch
import torch.multiprocessing as processes

from fairseq_compress.functional.quantization.linear import LinearScheme, fake_quantize
from fairseq_compress.modules.activation_quantizer import ActivationQuantizer, step_ranges
from fairseq_compress.modules.positions import Positions, within
from tests.conftest import PLUGIN, TINY, run_command, train_in_two_processes
from tests.helpers.generation import generated

PLAN = """
weights:
  - modules: ["*.layers.*"]
    bits: 4
    granularity: group
    group_size: 8
    noise: {start: 0.2, end: 0.8, first_update: 2, last_update: 7}
  - {modules: ["*.embed_tokens"], bits: 4}
"""
ACTIVATIONS = 'activations: [{modules: ["*.layers.*"], decay: 0.9}]\n'


def load(path):
    return torch.load(path, weights_only=False)


@pytest.fixture(scope="module")
def quantized(train_arguments, teacher, tmp_path_factory):
    """A model that was trained with a plan, from the weights of the plain teacher; the plan's file is gone."""
    folder = tmp_path_factory.mktemp("quantized")
    (folder / "plan.yaml").write_text(PLAN + ACTIVATIONS)
    run_command(
        "fairseq-train", *train_arguments, *TINY, "--arch", "transformer_small", "--finetune-from-model", teacher,
        "--compression-plan", folder / "plan.yaml", "--save-dir", folder, "--lr", "1e-5",
    )  # fmt: skip
    (folder / "plan.yaml").unlink()
    return folder / "checkpoint_1_2.pt"


def test_the_checkpoint_has_the_plain_names_and_the_plan(quantized, teacher):
    state, plain = load(quantized)["model"], load(teacher)["model"]
    ranges = [key for key in state if key.endswith("input_quantizer.largest")]
    assert [key for key in state if key not in ranges] == list(plain)
    assert len(ranges) == 2 * 6 + 1 * 10
    assert all(state[key] > 0 for key in ranges)
    change = max((state[key] - plain[key]).abs().max() for key in plain)
    assert 0 < change < 1e-3  # two small updates of the master weights, which are not quantized ones


@pytest.mark.parametrize("task", ["translation", "compressed_translation"])
def test_generate_needs_nothing_but_the_checkpoint(task, quantized, teacher, data_bin, tmp_path):
    """The scores are those of the quantized model, with either task, and not those of the master weights."""

    def scores(path):
        log = run_command(
            "fairseq-generate", data_bin, "--user-dir", PLUGIN, "--task", task, "-s", "en", "-t", "cs", "--cpu",
            "--path", path, "--gen-subset", "test2", "--beam", 2, "--max-len-b", 5,
        ).stdout  # fmt: skip
        return re.findall(r"^H-\d+\t(\S+)", log, re.MULTILINE)

    by_hand = load(quantized)
    by_hand["cfg"]["model"].compression = None
    state = by_hand["model"]
    for key in [key for key in state if key.endswith("input_quantizer.largest")]:
        del state[key]
    torch.save(by_hand, tmp_path / "master.pt")
    for key, weight in list(state.items()):
        if key.endswith("weight") and weight.dim() == 2:
            state[key] = fake_quantize(weight, LinearScheme(4) if "layers" not in key else LinearScheme(4, "group", 8))
    torch.save(by_hand, tmp_path / "weights.pt")
    found, of_weights, of_master = (
        [float(score) for score in scores(path)]
        for path in (quantized, tmp_path / "weights.pt", tmp_path / "master.pt")
    )
    assert len(found) == 9
    distance, of_none = (
        max(abs(one - two) for one, two in zip(found, each, strict=True)) for each in (of_weights, of_master)
    )
    assert distance < 0.2 * of_none  # activations of eight bits change little


@pytest.mark.parametrize("stop", [2, 5])
def test_resume_in_the_middle_of_a_schedule_is_bit_equal(stop, train_arguments, tmp_path):
    base = [argument for argument in train_arguments if argument != "--no-last-checkpoints"]
    base[base.index("--max-tokens") + 1] = "240"
    (tmp_path / "plan.yaml").write_text(PLAN + ACTIVATIONS)
    options = [*TINY, "--arch", "transformer_small", "--dropout", "0.2", "--compression-plan", tmp_path / "plan.yaml"]
    states = []
    for name, stops in (("whole", [8]), ("resumed", [stop, 8])):
        for updates in stops:
            run_command("fairseq-train", *base, *options, "--max-update", updates, "--save-dir", tmp_path / name)
        states.append(load(tmp_path / name / "checkpoint_last.pt"))
        assert states[-1]["optimizer_history"][-1]["num_updates"] == 8
    for key, whole in states[0]["model"].items():
        assert torch.equal(whole, states[1]["model"][key]), key


def test_two_processes_give_the_gradient_of_one(train_arguments, teacher, tmp_path):
    """One SGD step of QAT on two batches: two gloo processes with a batch each, or one that accumulates both.

    So do the ranges of activations, the largest of both batches.
    """
    (tmp_path / "plan.yaml").write_text('weights: [{modules: ["*"], bits: 4}]\nactivations: [{modules: ["*"]}]')
    base = [*train_arguments, *TINY, "--arch", "transformer_small", "--dropout", 0, "--finetune-from-model", teacher,
            "--compression-plan", tmp_path / "plan.yaml", "--lr", "1.0", "--clip-norm", 0,
            "--ddp-backend", "legacy_ddp", "--max-update", 1, "--save-interval-updates", 1]  # fmt: skip
    base[base.index("adam")] = "sgd"
    run_command("fairseq-train", *base, "--update-freq", 2, "--save-dir", tmp_path / "one")
    train_in_two_processes(*base, "--update-freq", 1, "--save-dir", tmp_path / "two")
    start = load(teacher)["model"]
    one, two = (load(tmp_path / name / "checkpoint_1_1.pt")["model"] for name in ("one", "two"))
    for key, weight in one.items():
        torch.testing.assert_close(two[key], weight, rtol=1e-5, atol=1e-6, msg=key)
    assert max((one[key] - weight).abs().max().item() for key, weight in start.items()) > 1e-3
    assert all(value > 0 for key, value in one.items() if key.endswith("input_quantizer.largest"))


def test_autocast_quantizes_as_float32_does(train_arguments, teacher, tmp_path):
    """With bfloat16 products, weights, centroids and ranges stay float32, and a step goes about the same way."""
    (tmp_path / "plan.yaml").write_text("""
weights:
  - {modules: ["*.fc?"], bits: 4, noise: {start: 0.5}}
  - {modules: ["*_proj"], method: product, block: 4, centroids: 8}
  - {modules: ["*.embed_tokens"], method: codebook, bits: 4}
activations: [{modules: ["*"]}]
""")
    states = {}
    for dtype in ("none", "bfloat16"):
        run_command(
            "fairseq-train", *train_arguments, *TINY, "--arch", "transformer_small", "--finetune-from-model", teacher,
            "--compression-plan", tmp_path / "plan.yaml", "--save-dir", tmp_path / dtype, "--autocast-dtype", dtype,
        )  # fmt: skip
        states[dtype] = load(tmp_path / dtype / "checkpoint_1_2.pt")["model"]
    floats = [key for key, value in states["none"].items() if value.is_floating_point()]
    assert all(states["bfloat16"][key].dtype == torch.float32 for key in floats)
    assert any(not torch.equal(states["none"][key], states["bfloat16"][key]) for key in floats)
    for key in floats:
        torch.testing.assert_close(states["bfloat16"][key], states["none"][key], rtol=0.02, atol=0.005, msg=key)


def _observe(rank, rendezvous, found):
    torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=2)
    quantizer = ActivationQuantizer(decay=0.5).train()
    for values in ((1.0, 3.0), (5.0, 2.0)):
        with within(Positions(observed=True)):
            quantizer(torch.tensor([[values[rank]]], requires_grad=True))
        step_ranges(quantizer)
    found[rank] = quantizer.largest.item()
    torch.distributed.destroy_process_group()


def test_processes_share_the_range_of_their_activations(tmp_path):
    with processes.Manager() as manager:
        found = manager.dict()
        processes.spawn(_observe, (str(tmp_path / "rendezvous"), found), nprocs=2)
        assert dict(found) == {0: 4.0, 1: 4.0}  # (3 + 5) / 2


def test_hydra_and_a_stock_architecture(data_bin, tmp_path):
    """fairseq's own transformer, its weights compressed by a plan in the configuration of hydra."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    run_command(
        "fairseq-train", data_bin, "--user-dir", PLUGIN, "--task", "compressed_translation", "-s", "en", "-t", "cs",
        "--cpu", *TINY, "--arch", "transformer", "--optimizer", "adam", "--max-tokens", 120, "--max-update", 1,
        "--save-dir", tmp_path / "stock", "--compression-plan", tmp_path / "plan.yaml", "--disable-validation",
    )  # fmt: skip
    assert "compression" in load(tmp_path / "stock" / "checkpoint_last.pt")["cfg"]["model"]
    log = run_command(
        "fairseq-generate", data_bin, "--user-dir", PLUGIN, "-s", "en", "-t", "cs", "--cpu", "--path",
        tmp_path / "stock" / "checkpoint_last.pt", "--gen-subset", "test2", "--max-len-b", 3,
    ).stdout  # fmt: skip
    assert len(re.findall(r"^H-\d+", log, re.MULTILINE)) == 9


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("weights: [{modules: ['*.fc9']}]", "weights[0].modules: the pattern '*.fc9' matches no module"),
        ("weights: [{modules: ['*'], bits: 12}]", "plan.yaml: weights[0].bits: must be in [2, 8], got 12"),
    ],
)
def test_a_bad_plan_is_one_line(plan, message, train_arguments, tmp_path):
    (tmp_path / "plan.yaml").write_text(plan)
    result = run_command(
        "fairseq-train", *train_arguments, *TINY, "--arch", "transformer_small", "--save-dir", tmp_path / "save",
        "--compression-plan", tmp_path / "plan.yaml", check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert message in result.stdout.splitlines()[-1]
    assert "Traceback" not in result.stdout


def test_the_average_of_quantized_models_is_that_of_their_master_weights(quantized, tmp_path):
    other = load(quantized)
    for key, weight in other["model"].items():
        if "version" not in key:
            other["model"][key] = weight * 2
    torch.save(other, tmp_path / "other.pt")
    run_command(
        "fairseq-compress", "average", "--checkpoint", quantized, tmp_path / "other.pt", "--output", tmp_path / "m.pt"
    )
    mean, state = load(tmp_path / "m.pt"), load(quantized)
    for key, weight in state["model"].items():
        torch.testing.assert_close(mean["model"][key], weight if "version" in key else weight * 1.5, msg=key)
    assert mean["cfg"]["model"].compression == state["cfg"]["model"].compression


def test_a_packed_checkpoint_gives_the_same_translations(quantized, data_bin, tmp_path):
    packed = tmp_path / "packed.safetensors"
    log = run_command("fairseq-compress", "quantize", "--checkpoint", quantized, "--output", packed).stdout
    assert f"{packed.stat().st_size:,} bytes" in log
    assert "linear: bits=4, granularity=group, group_size=8" in log
    assert generated(packed, data_bin) == generated(quantized, data_bin)
    described = run_command("fairseq-compress", "describe", "--checkpoint", quantized).stdout
    assert described == run_command("fairseq-compress", "describe", "--checkpoint", packed).stdout
    assert described.splitlines()[-1].split()[0].replace(",", "") == str(packed.stat().st_size)


def test_a_plain_model_is_packed_with_a_plan(teacher, data_bin, tmp_path):
    (tmp_path / "plan.yaml").write_text('weights: [{modules: ["*"], bits: 6}]')
    packed, again = tmp_path / "packed.safetensors", tmp_path / "again.safetensors"
    options = ["--plan", tmp_path / "plan.yaml"]
    run_command("fairseq-compress", "quantize", "--checkpoint", teacher, "--output", packed, *options)
    state = load(teacher)
    for key, weight in state["model"].items():
        if key.endswith("weight") and weight.dim() == 2:
            state["model"][key] = fake_quantize(weight, LinearScheme(6))
    torch.save(state, tmp_path / "by_hand.pt")
    assert generated(packed, data_bin) == generated(tmp_path / "by_hand.pt", data_bin)
    result = run_command(
        "fairseq-compress", "quantize", "--checkpoint", packed, "--output", again, *options, check=False
    )
    assert result.returncode == 1
    assert "--plan: the weights of" in result.stdout
    assert not again.exists()


def test_a_damaged_packed_checkpoint_is_one_line(teacher, data_bin, tmp_path):
    packed = tmp_path / "packed.safetensors"
    run_command("fairseq-compress", "quantize", "--checkpoint", teacher, "--output", packed)
    packed.write_bytes(packed.read_bytes()[:-5])
    result = run_command(
        "fairseq-generate", data_bin, "--user-dir", PLUGIN, "-s", "en", "-t", "cs", "--cpu", "--path", packed,
        check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "packed.safetensors: truncated, or no packed checkpoint" in result.stdout.splitlines()[-1]
