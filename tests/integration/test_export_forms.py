"""``fairseq-compress export`` of models that are no plain transformers: in their own form, or refused in one line."""

import json

import pytest

from fairseq_compress.cli.main import main
from fairseq_compress.runtimes.model_directory import ModelDirectory
from tests.conftest import PLUGIN, TINY, run_command
from tests.integration.test_export import export_arguments, model, translate  # noqa: F401 - a fixture

MODELS = {
    "recurrent": ["--decoder-self-attention", "ssru", "--embedding-rank", "8", "--ffn-rank", "6",
                  "--encoder-layer-groups", "1"],
    "average": ["--decoder-self-attention", "average", "--tensor-train-rank", "8", "--sparsity", "0.5",
                "--sparse-block", "8"],
    "bottleneck": ["--bottleneck-width", "8", "--embedding-rank", "8", "--embedding-convolution", "3"],
    "low-rank": ["--ffn-rank", "6"],
    "marian": ["--decoder-start", "zero", "--first-position", "0", "--norm-eps", "1e-6", "--output-bias",
               "--decoder-self-attention", "ssru"],
}  # fmt: skip
PLAN = 'weights: [{modules: ["*"], bits: 8}]\nactivations: [{modules: ["*"], decay: 0.9}]\n'


def train(model, name, *more):  # noqa: F811
    """A folder like that of the plain model, with the checkpoint of another architecture."""
    folder = model / name
    if folder.exists():
        return folder
    folder.mkdir()
    run_command(
        "fairseq-train", model / "bin", "--user-dir", PLUGIN, "--task", "compressed_translation", "-s", "en", "-t",
        "cs", "--cpu", "--arch", "transformer_small", *TINY, *MODELS[name.partition(" ")[0]], *more, "--optimizer",
        "adam", "--lr", "3e-3", "--max-tokens", 1000, "--max-update", 150, "--seed", 3, "--disable-validation",
        "--no-epoch-checkpoints", "--save-dir", folder, "--num-workers", 0,
    )  # fmt: skip
    for each in ("bin", "spm.model", "test.en", "test.cs"):
        (folder / each).symlink_to(model / each)
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_float32_translates_as_the_checkpoint(name, model, tmp_path):  # noqa: F811
    folder = train(model, name)
    assert main(export_arguments(folder, tmp_path / "out", "--quantization", "float32")) == 0
    metadata = ModelDirectory.open(tmp_path / "out").metadata
    assert metadata["check"]["equal"] >= 0.975  # one of 40 may be a tie
    assert metadata["stored_dense"] == []
    assert ("sparse_in_file" in metadata["onnx"]) == (name == "average")
    text = (model / "test.en").read_bytes()
    found, _ = translate(text, "--checkpoint", tmp_path / "out")
    checkpoint = ["--checkpoint", folder / "checkpoint_last.pt", "--data", model / "bin", "--max-len-b", 20]
    expected, _ = translate(text, *checkpoint, "--sentencepiece-model", model / "spm.model")
    assert sum(a != b for a, b in zip(found.split(b"\n"), expected.split(b"\n"), strict=True)) <= 1


def test_a_compression_plan_on_factors(model, tmp_path):  # noqa: F811
    """Quantized weights, and the ranges of activations that were learned, of shared and low-rank layers too."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    folder = train(model, "recurrent with a plan", "--compression-plan", tmp_path / "plan.yaml")
    for kind, most in (("float32", 0.5), ("int8_calibrated", 0.5)):
        options = ["--quantization", kind, "--max-bleu-loss", "20"]
        assert main(export_arguments(folder, tmp_path / kind, *options)) == 0
        check = json.loads((tmp_path / kind / "metadata.json").read_text())["check"]
        assert check["equal"] >= most  # the plan quantizes activations, which float32 does not


def test_bergamot_with_a_plan(model, tmp_path):  # noqa: F811
    """Its integers are the plan's, and the alphas are learned in training."""
    pytest.importorskip("fxtranslate")
    (tmp_path / "plan.yaml").write_text(PLAN.replace("bits: 8", "bits: 8, granularity: tensor"))
    sizes = [word for part in ("encoder", "decoder") for word in (
        f"--{part}-embed-dim", 64, f"--{part}-ffn-embed-dim", 64)]  # fmt: skip
    folder = train(
        model, "marian with a plan", "--compression-plan", tmp_path / "plan.yaml", *sizes, "--activation-fn", "relu"
    )
    command = [word for word in export_arguments(folder, tmp_path / "out") if word not in ("--max-len-b", "20")]
    assert main([*command, "--runtime", "bergamot", "--max-bleu-loss", "20"]) == 0
    metadata = ModelDirectory.open(tmp_path / "out").metadata
    assert set(metadata["forms"]) == {"kept"}
    assert metadata["check"]["equal"] >= 0.5


def test_ctranslate2_stores_dense_matrices_and_says_so(model, tmp_path, capsys):  # noqa: F811
    folder = train(model, "low-rank")
    options = ["--runtime", "ctranslate2", "--quantization", "float32"]
    assert main(export_arguments(folder, tmp_path / "out", *options)) == 0
    assert ModelDirectory.open(tmp_path / "out").metadata["stored_dense"] == ["low-rank layers"]
    assert "warning: ctranslate2 stores dense matrices in place of low-rank layers" in capsys.readouterr().err


def test_auto_leaves_out_the_runtime_that_cannot_hold_it(model, tmp_path):  # noqa: F811
    folder = train(model, "recurrent")
    options = ["--runtime", "auto", "--quantization", "float32"]
    assert main(export_arguments(folder, tmp_path / "out", *options)) == 0
    metadata = ModelDirectory.open(tmp_path / "out").metadata
    assert metadata["runtime"] == "onnx"
    (dropped,) = [each["dropped"] for each in metadata["auto"]["candidates"] if each["runtime"] == "ctranslate2"]
    assert "the decoder has ssru in the place of self-attention" in dropped


def test_ctranslate2_refuses_it_in_one_line(model, tmp_path, capsys):  # noqa: F811
    folder = train(model, "bottleneck")
    assert main(export_arguments(folder, tmp_path / "out", "--runtime", "ctranslate2")) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert "the layers of the encoder have bottlenecks" in lines[-1]
    assert not (tmp_path / "out").exists()
