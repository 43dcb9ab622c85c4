"""Options of fairseq-train that a checkpoint answers, and the cause of a training that failed."""

import os
import sys

import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

import fairseq_compress.models
import fairseq_compress.tasks.compressed_translation  # noqa: F401
from fairseq_compress.errors import ConfigError, TrainingError
from fairseq_compress.procedures.training_options import (
    check_dictionaries,
    check_training,
    checkpoint_options,
    last_value,
)
from fairseq_compress.procedures.training_run import Errors, run_training

SHAPES = {
    "transformer": ["--encoder-layers=3", "--share-decoder-input-output-embed", "--activation-fn=gelu"],
    "transformer_iwslt_de_en": ["--encoder-learned-pos", "--dropout=0.3", "--encoder-normalize-before"],
    "transformer_small": ["--no-share-all-embeddings", "--max-source-positions=50", "--ffn-rank=3"],
    "transformer_student_tiny_ssru": ["--decoder-layers=1", "--embedding-rank=8", "--encoder-layer-groups=2"],
}


def configuration(arguments):
    parser = options.get_training_parser()
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, arguments))


def differences(model, other):
    """Values of ``other`` that are not those of ``model``; fairseq itself gives some numbers as text."""
    pairs = {name: (vars(model)[name], value) for name, value in vars(other).items() if name in vars(model)}
    return {name: new for name, (old, new) in pairs.items() if old != new and str(old) != str(new)}


@pytest.mark.parametrize("arch", SHAPES)
def test_a_checkpoint_gives_its_architecture_again(arch):
    """Parsed by fairseq, the options give the model's configuration value for value."""
    base = ["DATA", "--task", "compressed_translation", "--optimizer", "adam"]
    trained = configuration([*base, "-s", "en", "-t", "cs", "--arch", arch, *SHAPES[arch]])
    found = configuration([*checkpoint_options(trained, base), *base])
    assert differences(trained.model, found.model) == {}
    assert vars(trained.model).keys() <= vars(found.model).keys()
    assert (found.task.source_lang, found.task.target_lang) == ("en", "cs")
    assert found.task.max_source_positions == trained.task.max_source_positions
    own = [*base, "--dropout", "0.25", "-s", "de"]
    changed = configuration([*checkpoint_options(trained, own), *own])
    assert differences(trained.model, changed.model) == {"dropout": 0.25, "source_lang": "de"}


def test_another_architecture_of_the_same_family_keeps_the_shape():
    base = ["DATA", "--task", "compressed_translation", "--optimizer", "adam"]
    trained = configuration([*base, "--arch", "transformer_iwslt_de_en", "--encoder-layers", "2"])
    own = [*base, "--arch=transformer_small"]
    found = configuration([*checkpoint_options(trained, own), *own]).model
    assert (found.arch, found.encoder_layers, found.encoder_ffn_embed_dim) == ("transformer_small", 2, 1024)
    assert found.share_all_embeddings is False
    with pytest.raises(
        ConfigError, match="--arch: unknown architecture 'transformer_smal'; did you mean transformer_small"
    ):
        checkpoint_options(trained, ["--arch", "transformer_smal"])


def test_what_a_training_requires():
    check_training(["DATA", "--optimizer=adam", "--max-epoch", "3"])
    with pytest.raises(ConfigError, match=r"requires --optimizer and one of --max-update, --max-epoch, .* after --"):
        check_training(["DATA"])
    assert last_value(["--lr", "1", "--lr=2", "x"], "--lr") == "2"
    assert last_value(["-s", "en"], "--source-lang", "-s") == "en"
    assert last_value(["--lr"], "--lr") is None


def test_data_of_other_dictionaries(tmp_path):
    cfg = configuration(["DATA", "-s", "en", "-t", "cs", "--arch", "transformer"])
    (tmp_path / "dict.en.txt").write_text("a 1\nb 1\n")
    with pytest.raises(ConfigError, match=r"must be a folder of fairseq-preprocess, has no dict\.cs\.txt"):
        check_dictionaries(str(tmp_path), cfg, [], (6, 6))
    (tmp_path / "dict.cs.txt").write_text("a 1\nb 1\nc 1\n")
    check_dictionaries(str(tmp_path), cfg, [], (6, 7))
    check_dictionaries(f"{tmp_path}:other", cfg, ["-t", "en"], (6, 6))
    with pytest.raises(ConfigError, match=r"dict\.cs\.txt has 7 entries, the checkpoint's embedding 6"):
        check_dictionaries(str(tmp_path), cfg, [], (6, 6))


@pytest.mark.parametrize(
    ("lines", "cause", "shown"),
    [
        (["a note", "Traceback (most recent call last):", '  File "x"', "    f()", "", "KeyError: 'foo'"],
         "KeyError: 'foo'", ["a note"]),
        (["Traceback (most recent call last):", "  f()", "OSError: first", "",
          "During handling of the above exception, another exception occurred:", "",
          "Traceback (most recent call last):", "  g()", "Exception: second"], "OSError: first", ["", ""]),
        (["[rank1]: Traceback (most recent call last):", "[rank1]:   f()", "[rank1]: ValueError: bad",
          "Traceback (most recent call last):", "  r()", "torch.distributed.elastic.multiprocessing.errors: x"],
         "ValueError: bad", []),
        (["usage: fairseq-train [-h]", "       [--x X]", "fairseq-train: error: unrecognized arguments: --y"],
         "unrecognized arguments: --y", []),
        (["fairseq-compress: error: compression plan: must be YAML"], "compression plan: must be YAML", []),
        (["x: error: " + "a" * 999], "a" * 300 + " ...", []),
        (["just words"], None, ["just words"]),
    ],
)  # fmt: skip
def test_the_cause_is_found_and_tracebacks_are_held_back(lines, cause, shown):
    errors = Errors()
    assert [line for line in lines if errors.passes(line + "\n")] == shown
    assert errors.cause == cause
    assert len(errors.held) == len(lines) - len(shown)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise KeyError('x')", r"the training ended with status 1: KeyError: 'x' \(see .*errors\.log\)"),
        ("import os; os.kill(os.getpid(), 9)", r"the training was ended by SIGKILL: it gave no cause"),
    ],
)
def test_a_training_that_fails(code, message, tmp_path, capfd):
    code = f"import sys; print('seen', file=sys.stderr, flush=True); {code}"
    with open(os.devnull, "wb") as lock, pytest.raises(TrainingError, match=message):
        run_training([sys.executable, "-c", code], tmp_path / "errors.log", lock.fileno())
    assert capfd.readouterr().err == "seen\n"
    assert "seen\n" in (tmp_path / "errors.log").read_text()


def test_a_training_that_ends_well_shows_everything(tmp_path, capfd):
    code = "import sys; sys.stderr.write('Traceback (most recent call last):\\n  x\\nE: y\\nlast')"
    with open(os.devnull, "wb") as lock:
        run_training([sys.executable, "-c", code], tmp_path / "errors.log", lock.fileno())
    assert sorted(capfd.readouterr().err.split("\n")) == sorted(
        ["  x", "E: y", "", "Traceback (most recent call last):", "last"]
    )
