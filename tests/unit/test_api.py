"""The Python API: what it imports, loading, quantizing a copy, losses on plain tensors, missing packages."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import fairseq_compress
from fairseq_compress import functional
from fairseq_compress.errors import CheckpointError, ConfigError, FairseqCompressError, MissingPackageError
from tests.conftest import run_command

PLAN = {"weights": [{"modules": ["*"], "bits": 4}]}


def run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )


def test_importing_loads_nothing():
    code = (
        "import sys, fairseq_compress as f; f.Translator, f.load, f.quantize, f.Hypothesis, f.LoadedModel;"
        "sys.exit(len({'torch', 'fairseq', 'numpy', 'onnxruntime', 'sentencepiece'} & set(sys.modules)))"
    )
    assert run_python(code).returncode == 0


def test_every_name_is_there():
    assert [name for name in fairseq_compress.__all__ if not hasattr(fairseq_compress, name)] == []
    assert [name for name in functional.__all__ if not hasattr(functional, name)] == []
    with pytest.raises(AttributeError, match="has no attribute 'Translater'"):
        fairseq_compress.Translater  # noqa: B018


def test_losses_are_those_of_pytorch():
    torch.manual_seed(1)
    student, teacher, target = torch.randn(5, 11), torch.randn(5, 11), torch.tensor([4, 5, 6, 7, 1])
    loss = functional.word_level_kd_loss(student, [teacher], target, temperature=2.0, gold_weight=0.3, kd_weight=0.7)
    kept = slice(0, 4)  # the last is padding
    gold = nn.functional.cross_entropy(student[kept], target[kept], reduction="sum")
    q = torch.softmax(teacher[kept] / 2, -1)
    kd = nn.functional.kl_div(torch.log_softmax(student[kept] / 2, -1), q, reduction="sum")
    torch.testing.assert_close(loss.loss, 0.3 * gold + 0.7 * 4 * kd)
    torch.testing.assert_close(functional.label_smoothed_loss(student, target).loss, gold)


def test_a_quantized_copy():
    """Four bits a row: 15 levels of max|w| / 7 and, as everywhere in evaluation, exactly these."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 4))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    quantized = fairseq_compress.quantize(model, PLAN).eval()
    assert list(quantized.state_dict()) == list(before)
    for layer, weight in ((quantized[0], before["0.weight"]), (quantized[1], before["1.weight"])):
        scale = weight.abs().amax(1, keepdim=True) / 7
        torch.testing.assert_close(layer.weight.detach(), (weight / scale).round().clamp(-7, 7) * scale)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert type(model[0]) is nn.Embedding


def test_a_compressed_model_is_refused():
    quantized = fairseq_compress.quantize(nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 4)), PLAN)
    message = r"its weight has a transform already, .*: give the plain model \(fairseq-compress materialize\)$"
    with pytest.raises(ConfigError, match=message):
        fairseq_compress.quantize(quantized, PLAN)


def test_ties_of_the_copy_stay_ties():
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 9, bias=False))
    model[1].weight = model[0].weight
    quantized = fairseq_compress.quantize(model, PLAN)
    assert torch.equal(quantized[0].weight, quantized[1].weight)
    assert len(list(quantized.parameters())) == 1


def test_a_wrong_plan_leaves_the_model_alone(tmp_path):
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 6))
    for plan in (
        {"weights": [{"modules": ["0"]}, {"modules": ["*"], "method": "linear"}]},
        {"weights": [{"modules": ["nothing"]}]},
        tmp_path / "missing.yaml",
    ):
        with pytest.raises(ConfigError):
            fairseq_compress.quantize(model, plan)
    assert [type(layer) for layer in model] == [nn.Linear, nn.Linear]


def test_load(teacher, data_bin, tmp_path):
    loaded = fairseq_compress.load(teacher)  # its dictionaries: in the folder it was trained on
    assert not loaded.model.training
    assert (loaded.cfg.task.source_lang, loaded.cfg.task.target_lang) == ("en", "cs")
    assert loaded.task.source_dictionary.symbols == loaded.source_dictionary.symbols
    quantized = fairseq_compress.quantize(loaded.model, PLAN)
    assert '"bits": 4' in quantized.args.compression
    assert getattr(loaded.model.args, "compression", None) is None
    run_command("fairseq-compress", "quantize", "--checkpoint", teacher, "--output", tmp_path / "packed.safetensors")
    packed = fairseq_compress.load(tmp_path / "packed.safetensors", data=data_bin)
    for one, two in zip(loaded.model.state_dict().values(), packed.model.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ConfigError, match="data: must"):
        fairseq_compress.load(teacher, data=tmp_path)


# A package that is not installed, for the process that runs this: sys.modules would raise another error.
HIDE = """
import sys
from types import SimpleNamespace
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""


@pytest.mark.parametrize(
    ("package", "use"),
    [("torch,fairseq", "f.load('a.pt')"), ("torch", "f.quantize(None, 'plan.yaml')"), ("fairseq", "f.load('a.pt')")],
)
def test_a_missing_package_is_named(package, use):
    code = f"{HIDE}\nimport fairseq_compress as f\ntry: {use}\nexcept f.errors.MissingPackageError as e: print(e)"
    done = run_python(f"import fairseq_compress.errors\n{code}", package)
    assert "is not installed: pip install " in done.stdout, done.stderr
    assert "--no-build-isolation 'fairseq-compress[train]'" in done.stdout
    assert issubclass(MissingPackageError, FairseqCompressError)
    assert issubclass(MissingPackageError, ImportError)


@pytest.mark.parametrize("name", ["multilingual_translation", "translation_multi_simple_epoch"])
def test_a_checkpoint_of_a_multilingual_task_is_refused(name):
    """They take other arguments than two dictionaries."""
    import fairseq_compress.tasks.compressed_translation  # noqa: F401 - fairseq and all of its tasks
    from fairseq_compress.checkpoint.load import task_of

    with pytest.raises(CheckpointError, match=f"checkpoint c.pt: must be of the task translation, got {name}"):
        task_of("c.pt", SimpleNamespace(task=SimpleNamespace(_name=name)))


@pytest.mark.parametrize("name", ["translation_from_pretrained_bart", "translation_lev"])
def test_a_task_with_language_tokens_or_its_own_decoding_does_not_translate(name):
    import fairseq_compress.tasks.compressed_translation  # noqa: F401 - fairseq and all of its tasks
    from fairseq_compress.checkpoint.load import task_of

    cfg = SimpleNamespace(task=SimpleNamespace(_name=name))
    assert task_of("c.pt", cfg)
    with pytest.raises(CheckpointError, match=f"must be of the task translation, got {name}"):
        task_of("c.pt", cfg, translates=True)
