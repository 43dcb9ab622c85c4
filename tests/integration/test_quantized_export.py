"""A model of quantization-aware training, exported: weights as they were quantized, ranges as it learned them."""

import json
import subprocess

import onnx
import pytest
import torch

from fairseq_compress.cli.main import main
from tests.conftest import BIN, PLUGIN, TINY, run_command
from tests.integration.test_export import export_arguments, model  # noqa: F401 - a fixture

WEIGHTS = 'weights: [{modules: ["*"], bits: 8}]\n'
ACTIVATIONS = 'activations: [{modules: ["*"], decay: 0.9}]\n'


def finetune(model, name, plan):  # noqa: F811
    """A folder like that of the plain model, in which the checkpoint is one that was finetuned with a plan."""
    folder = model / name
    folder.mkdir()
    (folder / "plan.yaml").write_text(plan)
    run_command(
        "fairseq-train", model / "bin", "--user-dir", PLUGIN, "--task", "compressed_translation", "-s", "en",
        "-t", "cs", "--cpu", "--arch", "transformer_small", *TINY, "--optimizer", "adam", "--lr", "1e-4",
        "--max-tokens", 1000, "--max-update", 20, "--seed", 3, "--disable-validation", "--no-epoch-checkpoints",
        "--save-dir", folder, "--num-workers", 0, "--finetune-from-model", model / "checkpoint_last.pt",
        "--compression-plan", folder / "plan.yaml",
    )  # fmt: skip
    for name in ("bin", "spm.model", "test.en", "test.cs"):
        (folder / name).symlink_to(model / name)
    return folder


@pytest.fixture(scope="module")
def quantized(model):  # noqa: F811
    return finetune(model, "quantized", WEIGHTS + ACTIVATIONS)


@pytest.mark.parametrize("runtime", ["onnx", "ctranslate2"])
def test_quantized_weights_are_exported_as_they_are(runtime, model, tmp_path):  # noqa: F811
    folder = model / "weights"
    if not folder.exists():
        finetune(model, "weights", WEIGHTS)
    assert main(export_arguments(folder, tmp_path / "out", "--runtime", runtime, "--quantization", "float32")) == 0
    check = json.loads((tmp_path / "out" / "metadata.json").read_text())["check"]
    assert check["equal"] >= (0.975 if runtime == "onnx" else 0.95)  # one of 40 may be a tie


def test_int8_with_the_ranges_that_were_learned(quantized, tmp_path):
    """No calibration text; the ranges in the graphs are those of the checkpoint."""
    output = tmp_path / "out"
    options = ["--quantization", "int8_calibrated", "--max-bleu-loss", "5"]  # the model is tiny and hardly trained
    assert main(export_arguments(quantized, output, *options)) == 0
    state = torch.load(quantized / "checkpoint_last.pt", weights_only=False)["model"]
    learned = {value.item() for key, value in state.items() if key.endswith("largest")}
    steps = set()
    for name in ("encoder.onnx", "step.onnx"):
        graph = onnx.load(output / name, load_external_data=False).graph
        values = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer if not each.external_data}
        steps |= {float(values[node.input[1]]) for node in graph.node if node.op_type == "QuantizeLinear"}
    assert len(steps) > 10
    for step in steps:
        assert min(abs(step * 127 / 2 - value) for value in learned) < 1e-5 * step * 127


def test_the_materialized_weights_are_the_quantized_ones(quantized, tmp_path):
    run_command(
        "fairseq-compress", "materialize", "--checkpoint", quantized / "checkpoint_last.pt", "--output",
        tmp_path / "plain.pt",
    )  # fmt: skip
    weights = torch.load(tmp_path / "plain.pt", weights_only=False)["model"]
    assert not [key for key in weights if "quantizer" in key]
    row = weights["encoder.layers.0.self_attn.q_proj.weight"][0]
    steps = row * (127 / row.abs().max())
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    log = run_command(
        "fairseq-generate", quantized / "bin", "--path", tmp_path / "plain.pt", "-s", "en", "-t", "cs", "--cpu",
        "--gen-subset", "valid", "--max-len-b", 5, "--max-tokens", 4000,
    ).stdout  # fmt: skip
    assert "Generate valid with beam=5" in log


def test_translate_takes_a_packed_checkpoint(quantized, tmp_path):
    """Raw text through the packed model and through the checkpoint: the same translations."""
    packed = tmp_path / "packed.safetensors"
    run_command("fairseq-compress", "quantize", "--checkpoint", quantized / "checkpoint_last.pt", "--output", packed)
    found = []
    for name in (packed, quantized / "checkpoint_last.pt"):
        command = [
            BIN / "fairseq-compress", "translate", "--checkpoint", name, "--data", quantized / "bin",
            "--sentencepiece-model", quantized / "spm.model", "--max-len-b", 20,
        ]  # fmt: skip
        text = (quantized / "test.en").read_bytes()
        result = subprocess.run([str(part) for part in command], input=text, capture_output=True, check=True)
        found.append(result.stdout)
    assert found[0] == found[1]
    assert found[0].count(b"\n") == 40


def test_ranges_that_were_not_learned_are_named(quantized, model, tmp_path, capsys):  # noqa: F811
    state = torch.load(quantized / "checkpoint_last.pt", weights_only=False)
    plan = json.loads(state["cfg"]["model"].compression)
    plan["activations"][0]["modules"] = ["*", "!encoder.layers.1.fc1"]
    state["cfg"]["model"].compression = json.dumps(plan)
    del state["model"]["encoder.layers.1.fc1.input_quantizer.largest"]
    folder = tmp_path / "model"
    folder.mkdir()
    torch.save(state, folder / "checkpoint_last.pt")
    for name in ("bin", "spm.model", "test.en", "test.cs"):
        (folder / name).symlink_to(model / name)
    assert main(export_arguments(folder, tmp_path / "out", "--quantization", "int8_calibrated")) == 1
    assert "learned no range of encoder.layers.1.fc1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
