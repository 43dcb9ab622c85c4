"""A model whose layers differ in heads and FFN units, by the real commands: trained, resumed, decoded, exported."""

import json

import pytest
import torch

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.reading import read_architecture
from fairseq_compress.checkpoint.load import load_state, load_upgraded
from fairseq_compress.checkpoint.materialize import materialize
from fairseq_compress.cli.main import main
from fairseq_compress.corpus.nbest import read_nbest
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.evaluation.model_cost import plain_model
from fairseq_compress.export.onnx_format import write_model
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.onnx.model import OnnxModel
from fairseq_compress.teachers.loading import load_models
from tests.conftest import PLUGIN, run_command
from tests.helpers.cost_models import counted, tokens

HEADS, UNITS = (4, 8, 2), (512, 1024, 256)
SHAPE = {
    "encoder": {"width": 32, "layers": [
        {"self_attention": {"heads": heads, "head_width": 6}, "ffn": units}
        for heads, units in zip(HEADS, UNITS, strict=True)
    ]},
    "decoder": {"width": 32, "layers": [
        {"self_attention": {"heads": 3, "head_width": 8}, "cross_attention": {"heads": 3, "head_width": 8}, "ffn": 64}
    ]},
}  # fmt: skip
BEAM, LONGEST = 3, 12


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    file = tmp_path_factory.mktemp("architecture") / "uneven.json"
    file.write_text(json.dumps(SHAPE))
    return file


@pytest.fixture(scope="module")
def trained(architecture, train_arguments, tmp_path_factory):
    """The checkpoint of a training of 4 updates that stopped and resumed at 2."""
    folder = tmp_path_factory.mktemp("trained")
    options = ["--arch", "transformer_student_tiny", "--architecture", architecture, "--save-dir", folder]
    for updates in (2, 4):
        base = [option for option in train_arguments if option != "--no-last-checkpoints"]
        run_command("fairseq-train", *base, *options, "--max-update", updates)
    return folder / "checkpoint_last.pt"


def test_a_resumed_training_is_the_whole_one(trained, architecture, train_arguments, tmp_path):
    base = [option for option in train_arguments if option != "--no-last-checkpoints"]
    options = ["--arch", "transformer_student_tiny", "--architecture", architecture, "--save-dir", tmp_path]
    run_command("fairseq-train", *base, *options, "--max-update", 4)
    whole, resumed = (load_state(path)["model"] for path in (tmp_path / "checkpoint_last.pt", trained))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert architecture_of(load_upgraded(trained)[1].model) == read_architecture(architecture)


def test_a_contradiction_ends_the_training_in_one_line(architecture, train_arguments, tmp_path):
    options = ["--arch", "transformer_small", "--architecture", architecture, "--encoder-layers", 6]
    refused = run_command("fairseq-train", *train_arguments, *options, "--save-dir", tmp_path, check=False)
    assert refused.returncode != 0
    assert "--encoder-layers: must be 3 as --architecture says, got 6" in refused.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def generated(trained, data_bin):
    """Sources and the hypotheses of fairseq-generate with their scores."""
    log = run_command(
        "fairseq-generate", data_bin, "--user-dir", PLUGIN, "--path", trained, "-s", "en", "-t", "cs", "--cpu",
        "--gen-subset", "test2", "--beam", BEAM, "--nbest", BEAM, "--max-len-b", LONGEST,
    ).stdout  # fmt: skip
    rows = [line.split("\t") for line in log.splitlines() if line[:2] in ("S-", "H-")]
    sources = {int(row[0][2:]): row[1] for row in rows if row[0].startswith("S")}
    found = {index: [] for index in sources}
    for name, *rest in rows:
        if name.startswith("H"):
            found[int(name[2:])].append((rest[1], float(rest[0]) * 0.6931471805599453))
    return [(sources[index], found[index]) for index in range(9)]


def check(found, generated):
    for hypotheses, (_, expected) in zip(found, generated, strict=True):
        assert [text for text, _ in hypotheses] == [text for text, _ in expected]
        assert [score for _, score in hypotheses] == pytest.approx([score for _, score in expected], abs=1e-3)


def test_nbest_finds_the_hypotheses_of_fairseq_generate(trained, generated, data_bin, tmp_path):
    source = tmp_path / "source"
    source.write_text("".join(f"{line}\n" for line, _ in generated))
    options = ["--data", str(data_bin), "--source", str(source), "--beam", str(BEAM), "--max-len-b", str(LONGEST)]
    assert main(["nbest", "--checkpoint", str(trained), *options, "--output", str(tmp_path / "out")]) == 0
    found = [[(text, score) for score, text in each.hypotheses] for each in read_nbest(tmp_path / "out", source)]
    check(found, generated)


def test_onnx_finds_them_too(trained, generated, data_bin, tmp_path):
    plain, models = materialize(trained, any_shape=True), load_models(str(trained), str(data_bin))
    own = write_model(tmp_path, plain.model, plain.values, models.source, models.target, "float32")
    metadata = {"onnx": own, "positions": {"source": 1024, "target": 1024}}
    options = SearchOptions(beam=BEAM, max_len_b=LONGEST)
    runtime = OnnxModel(ModelDirectory(tmp_path, metadata), options, nbest=BEAM)
    found = runtime.translate([line.split() for line, _ in generated])
    check([[(" ".join(best.output), best.score) for best in each] for each in found], generated)


def test_fairseq_s_transformer_cannot_hold_it(trained, tmp_path):
    options = ["--checkpoint", trained, "--output", tmp_path / "plain.pt"]
    refused = run_command("fairseq-compress", "materialize", *options, check=False)
    assert refused.returncode == 1
    line = refused.stdout.splitlines()[-1]
    assert "cannot be a plain transformer: the layers of the encoder have 4 or 8 or 2 heads" in line
    assert "the layers of the encoder have 512 or 1024 or 256 FFN units" in line


def test_describe_counts_it(trained, capsys):
    source, target = 7, 5
    lengths = ["--source-tokens", str(source), "--target-tokens", str(target)]
    assert main(["describe", "--checkpoint", str(trained), *lengths]) == 0
    output = capsys.readouterr().out
    model = plain_model(trained).eval()
    words = [tokens(length, entries=40) for length in (source, target)]
    products = counted(lambda: model(words[0], torch.tensor([source]), words[1]))
    rows = {line.rpartition("  ")[2]: line.split() for line in output.splitlines()}
    assert (
        int(rows[f"teacher-forced forward, {source} source and {target} target tokens"][4].replace(",", "")) == products
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert f"{parameters:,}" in output
    ffn = sum(2 * 32 * units + units + 32 for units in UNITS)
    assert int(rows["encoder"][1].replace(",", "")) == ffn
