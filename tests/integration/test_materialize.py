"""``fairseq-compress materialize``: fairseq's own transformer comes out, or a refusal with all reasons."""

from argparse import Namespace

import pytest
import torch
from fairseq.models.transformer import base_architecture

from fairseq_compress.checkpoint import materialize
from fairseq_compress.cli.main import main
from tests.conftest import PLUGIN, run_command

GENERATE = ("-s", "en", "-t", "cs", "--cpu", "--gen-subset", "test2", "--beam", 3, "--max-len-b", 12)


@pytest.fixture(scope="module")
def plain(teacher, tmp_path_factory):
    output = tmp_path_factory.mktemp("plain") / "plain.pt"
    log = run_command("fairseq-compress", "materialize", "--checkpoint", teacher, "--output", output).stdout
    assert "transformer, 2+1 layers, width 16, " in log.splitlines()[-1]
    return output


def hypotheses(log):
    return sorted(line.split("\t")[::2] for line in log.splitlines() if line.startswith("H-"))


def test_stock_fairseq_translates_with_it(plain, teacher, data_bin):
    ours = run_command(
        "fairseq-generate", data_bin, "--user-dir", PLUGIN, "--task", "compressed_translation", "--path", teacher,
        *GENERATE,
    ).stdout  # fmt: skip
    stock = run_command(
        "fairseq-generate", data_bin, "--path", plain, *GENERATE, "--required-batch-size-multiple", 1
    ).stdout  # fmt: skip
    assert hypotheses(stock) == hypotheses(ours)
    assert len(hypotheses(stock)) == 9


def test_nothing_of_ours_is_left(plain, teacher):
    state = torch.load(plain, weights_only=True)  # with no class allowed but tensors and plain values
    before = torch.load(teacher, weights_only=False)
    assert state["model"].keys() == before["model"].keys()
    assert all(torch.equal(state["model"][key], weight) for key, weight in before["model"].items())
    assert state["cfg"]["model"]["_name"] == "transformer"
    assert state["cfg"]["task"]["_name"] == "translation"
    assert "autocast_dtype" not in state["cfg"]["task"]
    assert state["cfg"]["common"]["user_dir"] is None
    assert state["last_optimizer_state"] is None


def test_tied_weights_are_written_once(plain, teacher):
    weights = torch.load(plain, weights_only=True)["model"]
    tables = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
    assert len({weights[key].untyped_storage().data_ptr() for key in tables}) == 1


def changed(teacher, folder, change):
    state = torch.load(teacher, weights_only=False)
    change(state)
    torch.save(state, folder / "changed.pt")
    return folder / "changed.pt"


def test_options_that_are_no_dataclass_become_plain_values(teacher, tmp_path):
    def change(state):
        state["cfg"]["optimizer"] = Namespace(_name="sgd", momentum=0.5)

    output = tmp_path / "plain.pt"
    assert main(["materialize", "--checkpoint", str(changed(teacher, tmp_path, change)), "--output", str(output)]) == 0
    assert torch.load(output, weights_only=True)["cfg"]["optimizer"] == {"_name": "sgd", "momentum": 0.5}


def refused(checkpoint, folder, capsys):
    assert main(["materialize", "--checkpoint", str(checkpoint), "--output", str(folder / "out.pt")]) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["changed.pt"]
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_given_width_of_the_decoder_is_a_number():
    """fairseq's parser leaves it a text, which CTranslate2's export took for another width."""
    base_architecture(model := Namespace(encoder_embed_dim=16, decoder_output_dim="16"))
    assert materialize.model_values(model)["decoder_output_dim"] == 16


def test_another_architecture_is_refused(teacher, tmp_path, capsys):
    def change(state):
        state["cfg"]["model"]._name = state["cfg"]["model"].arch = "fconv"
        del state["model"]["decoder.embed_tokens.weight"]

    line = refused(changed(teacher, tmp_path, change), tmp_path, capsys)
    assert "cannot be a plain transformer: its architecture fconv is a FConvModel, no transformer; " in line
    assert line.endswith("decoder.embed_tokens.weight is missing")


def test_all_differences_of_shape_are_named():
    weights = {"a": torch.zeros(2), "b": torch.zeros(3, 4), "c": torch.zeros(1)}
    plain = {"b": torch.zeros(4, 4), "c": torch.zeros(1), "d": torch.zeros(1)}
    assert materialize.why_not_by_shape(weights, plain) == [
        "a is no weight of a transformer",
        "d is missing",
        "b has the shape (3, 4), in a transformer of these options (4, 4)",
    ]


def test_what_computes_something_else_is_refused(teacher, tmp_path, capsys, monkeypatch):
    values = materialize.model_values
    monkeypatch.setattr(materialize, "model_values", lambda model: values(model) | {"activation_fn": "gelu"})
    line = refused(changed(teacher, tmp_path, lambda state: None), tmp_path, capsys)
    assert "as a plain transformer its log-probabilities differ by" in line


def test_weights_that_are_not_numbers_are_refused(teacher, tmp_path, capsys):
    def change(state):
        state["model"]["decoder.layers.0.fc1.weight"][0, 0] = float("nan")

    assert "differ by inf" in refused(changed(teacher, tmp_path, change), tmp_path, capsys)


def test_the_output_must_not_be_the_input(teacher, capsys):
    before = teacher.read_bytes()
    assert main(["materialize", "--checkpoint", str(teacher), "--output", str(teacher)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is also an input" in line
    assert teacher.read_bytes() == before
