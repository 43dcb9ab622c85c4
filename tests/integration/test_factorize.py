"""``fairseq-compress factorize``: a low-rank checkpoint of a trained one, by rank, energy and size, and refusals."""

import fairseq.tasks.translation  # noqa: F401 - before register(), which does nothing without fairseq
import pytest
import torch

import fairseq_compress
from fairseq_compress.checkpoint.average import count_parameters
from fairseq_compress.checkpoint.factorize import factorize
from fairseq_compress.checkpoint.load import build_model, dictionaries_of, load_upgraded
from fairseq_compress.checkpoint.materialize import greatest_difference, write_materialized
from fairseq_compress.checkpoint.pack import pack
from fairseq_compress.cli.main import main
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layers.low_rank import truncated_svd
from fairseq_compress.modules.factorized_output import FactorizedOutput
from fairseq_compress.modules.low_rank_linear import LowRankLinear
from fairseq_compress.modules.structured import structured_modules
from fairseq_compress.procedures.post_training import quantize
from fairseq_compress.surgery.factorize import RankChoice
from fairseq_compress.weights.reading import plan_of, read_plan
from tests.conftest import PLUGIN, TINY, run_command

fairseq_compress.register()
PICKED = 2 * 6 + 1 * 10  # encoder and decoder layers
FC1, QUERY = "encoder.layers.0.fc1", "decoder.layers.0.encoder_attn.q_proj"


def run(checkpoint, output, *options):
    return main(["factorize", "--checkpoint", str(checkpoint), "--output", str(output), *map(str, options)])


def model_of(path):
    state, cfg = load_upgraded(path)
    source, target = dictionaries_of(state["model"])
    return build_model(path, state, cfg, source, target).eval(), len(source), len(target)


def difference(first, second):
    (one, *sizes), (other, *others) = model_of(first), model_of(second)
    assert sizes == others
    return greatest_difference(one, other, *sizes)


def weights_of(path):
    return torch.load(path, weights_only=False)["model"]


def changed(teacher, path, change):
    state = torch.load(teacher, weights_only=False)
    change(state)
    torch.save(state, path)
    return path


def rows(text):
    """Name -> (shape, rank, error, numbers, numbers before) of the lines of a table."""
    cells = [line.split() for line in text.splitlines()[1:-2]]
    return {c[-1]: (f"{c[0]} x {c[2]}", c[3], c[4] if len(c) == 8 else "", c[-3], c[-2]) for c in cells}


def test_one_rank_for_all(teacher, data_bin, tmp_path, capsys):
    """Weights are the truncated SVD, the table tells their errors, layers that would not get smaller stay."""
    output = tmp_path / "f.pt"
    assert run(teacher, output, "--rank", 9) == 0  # from 8 on 16 x 16 is smaller dense, from 10 on 24 x 16
    table = capsys.readouterr().out
    model, plain = model_of(output)[0], weights_of(teacher)
    layers = {name: m for name, m in structured_modules(model).items() if isinstance(m, LowRankLinear)}
    assert sorted(layers) == sorted(name for name in rows(table) if ".fc" in name)
    assert len(rows(table)) == PICKED
    for name, (shape, rank, error, numbers, before) in rows(table).items():
        if name not in layers:
            assert (shape, rank, error, numbers, before) == ("16 x 16", "dense", "", "256", "256")
            assert torch.equal(model.state_dict()[f"{name}.weight"], plain[f"{name}.weight"])
            continue
        weight = plain[f"{name}.weight"]
        values = torch.linalg.svdvals(weight.double())
        assert (rank, numbers, before) == ("9", str(9 * 40), str(16 * 24))
        assert float(error) == pytest.approx(float(values[9:].norm() / values.norm()), abs=1e-6)
        up, down = truncated_svd(weight, 9)
        torch.testing.assert_close(layers[name].weight, up @ down)
        assert torch.equal(layers[name].bias, plain[f"{name}.bias"])
    saved = (16 * 24 - 9 * 40) * len(layers)
    dense = PICKED * 256 + len(layers) * 128
    totals = [[int(number.replace(",", "")) for number in line.split()[:2]] for line in table.splitlines()[-2:]]
    everything = count_parameters(plain)
    assert totals == [[dense - saved, dense], [everything - saved, everything]]
    assert count_parameters(weights_of(output)) == everything - saved
    log = run_command(
        "fairseq-generate", data_bin, "--user-dir", PLUGIN, "-s", "en", "-t", "cs", "--cpu", "--path", output,
        "--gen-subset", "test1", "--beam", 2, "--max-len-b", 5,
    ).stdout  # fmt: skip
    assert log.count("\nH-") == 5


@pytest.mark.parametrize("options", [("--rank", 3), ("--energy", 0.9999999)])
def test_weights_of_that_rank_lose_nothing(teacher, tmp_path, options):
    def to_rank_3(state):
        for key, weight in state["model"].items():
            if key.endswith(".weight") and ".layers." in key and weight.dim() == 2:
                up, down = truncated_svd(weight, 3)
                weight.copy_(up @ down)

    exact = changed(teacher, tmp_path / "exact.pt", to_rank_3)
    assert run(exact, tmp_path / "f.pt", *options) == 0
    layers = structured_modules(model_of(tmp_path / "f.pt")[0])
    assert len(layers) == PICKED
    assert {layer.rank for layer in layers.values()} == {3}
    assert difference(exact, tmp_path / "f.pt") < 1e-4


def test_energy(teacher, tmp_path):
    assert run(teacher, tmp_path / "f.pt", "--energy", 0.6, "--modules", "*.fc1", "encoder*q_proj") == 0
    layers, plain = structured_modules(model_of(tmp_path / "f.pt")[0]), weights_of(teacher)
    assert sorted(layers) == sorted(
        [f"{part}.fc1" for part in ("encoder.layers.0", "encoder.layers.1", "decoder.layers.0")]
        + [f"encoder.layers.{layer}.self_attn.q_proj" for layer in (0, 1)]
    )
    for name, layer in layers.items():
        shares = torch.linalg.svdvals(plain[f"{name}.weight"].double()).square()
        kept = [float(shares[:rank].sum() / shares.sum()) for rank in (layer.rank - 1, layer.rank)]
        assert kept[0] < 0.6 <= kept[1]


@pytest.mark.parametrize("embedding_rank", [0, 4])
def test_size(teacher, embedding_rank):
    """The target is met, and what is left of it is too small for a rank more where it is worth something."""
    dense = 4 * count_parameters(weights_of(teacher))
    for percent in (60, 75, 90):
        found = factorize(teacher, RankChoice(size=dense * percent // 100), embedding_rank=embedding_rank)
        assert 4 * found.after == 4 * count_parameters(found.state["model"]) <= dense * percent // 100
        assert found.before - found.after == sum(layer.before - layer.after for layer in found.layers)
        if percent < 90:  # there some layers are dense, and the step to that is a large one
            assert dense * percent // 100 - 4 * found.after < 4 * (16 + 24)


def test_embeddings_and_their_ties(teacher, tmp_path, capsys):
    assert run(teacher, tmp_path / "f.pt", "--rank", 2, "--embedding-rank", 5) == 0
    table = capsys.readouterr().out
    assert "encoder.embed_tokens (and 2 that share it)" in table
    model, plain = model_of(tmp_path / "f.pt")[0], weights_of(teacher)["encoder.embed_tokens.weight"]
    output = model.decoder.output_projection
    assert isinstance(output, FactorizedOutput)
    assert output.table.weight is model.encoder.embed_tokens.table.weight is model.decoder.embed_tokens.table.weight
    left, right = truncated_svd(plain, 5)
    torch.testing.assert_close(output.dense_weight(), left @ right)
    weights = weights_of(tmp_path / "f.pt")
    keys = [
        f"{name}.table.weight" for name in ("encoder.embed_tokens", "decoder.embed_tokens", "decoder.output_projection")
    ]
    assert len({weights[key].untyped_storage().data_ptr() for key in keys}) == 1
    assert count_parameters(weights) == sum(p.numel() for p in model.parameters())


def test_fairseqs_own_transformer_becomes_one_of_ours(teacher, tmp_path):
    write_materialized(teacher, tmp_path / "plain.pt")
    assert run(tmp_path / "plain.pt", tmp_path / "f.pt", "--rank", 4) == 0
    cfg = torch.load(tmp_path / "f.pt", weights_only=False)["cfg"]
    assert cfg["model"]["_name"] == cfg["model"]["arch"] == "compressed_transformer"
    assert run(teacher, tmp_path / "ours.pt", "--rank", 4) == 0
    assert difference(tmp_path / "f.pt", tmp_path / "ours.pt") == 0


def test_quantized_weights_are_those_that_count(teacher, tmp_path):
    (tmp_path / "plan.yaml").write_text('weights: [{modules: ["*.fc1"], bits: 3}]\nactivations: [{modules: ["*.fc1"]}]')
    quantize(teacher, tmp_path / "q.pt", read_plan(tmp_path / "plan.yaml"))
    pack(tmp_path / "q.pt", tmp_path / "q.safetensors")
    for name in ("q.pt", "q.safetensors"):
        found = factorize(tmp_path / name, RankChoice(rank=3))
        quantized = model_of(tmp_path / "q.pt")[0].get_submodule(FC1).weight
        up, _ = truncated_svd(quantized.detach(), 3)
        torch.testing.assert_close(found.state["model"][f"{FC1}.up.weight"], up)
        assert plan_of(found.state["cfg"]["model"]) is None
        assert not any("quantizer" in key for key in found.state["model"])


def test_what_cannot_be_is_refused(teacher, tmp_path, capsys):
    assert run(teacher, tmp_path / "f.pt", "--rank", 2, "--embedding-rank", 2) == 0
    assert run(teacher, tmp_path / "g.pt", "--rank", 2) == 0
    broken = changed(teacher, tmp_path / "nan.pt", lambda state: state["model"][f"{QUERY}.bias"].fill_(torch.nan))
    other = changed(
        teacher, tmp_path / "o.pt", lambda state: setattr(state["cfg"]["model"], "_name", "transformer_align")
    )
    least = 4 * factorize(teacher, RankChoice(rank=1)).after
    capsys.readouterr()
    for checkpoint, options, message in (
        (teacher, ("--rank", 0), "--rank: must be in [1, inf), got 0"),
        (teacher, ("--energy", 1.5), "--energy: must be in (0, 1], got 1.5"),
        (teacher, ("--energy", "nan"), "--energy: must be in (0, 1], got nan"),
        (teacher, ("--size", least - 1), f"--size: must be at least {least} bytes, rank 1 in all layers picked"),
        (teacher, ("--rank", 16), "--rank 16: no layer would have fewer numbers than it has now"),
        (teacher, ("--size", 10**9), "--size 1000000000: no layer would have fewer numbers"),
        (teacher, ("--rank", 2, "--modules", "*.fc7"), "--modules: the pattern '*.fc7' matches no module"),
        (teacher, ("--rank", 2, "--modules", "*output_projection"), "matches no module"),
        (teacher, ("--rank", 2, "--embedding-rank", 16), "--embedding-rank: must be from 1 to"),
        (teacher, ("--rank", 2, "--embedding-rank", -1), "--embedding-rank: must be in [0, inf), got -1"),
        (
            tmp_path / "f.pt",
            ("--rank", 2),
            "must have dense layers, got a model in which encoder.embed_tokens is a Fac",
        ),
        (tmp_path / "g.pt", ("--rank", 2), "must have dense layers, got a model in which encoder.layers.0.self_attn."),
        (broken, ("--rank", 2), f"weight {QUERY}.bias holds NaN or infinity"),
        (other, ("--rank", 2), "must be of transformer or of one of our architectures, got transformer_align"),
    ):
        assert run(checkpoint, tmp_path / "no.pt", *options) == 1, options
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert not (tmp_path / "no.pt").exists()
    assert run(teacher, teacher, "--rank", 2) == 1
    assert "is also an input" in capsys.readouterr().err


def test_exactly_one_of_the_three():
    with pytest.raises(ConfigError, match="--rank, --energy, --size: one of them must be given, got --rank, --size"):
        RankChoice(rank=1, size=2)
    with pytest.raises(ConfigError, match="got none"):
        RankChoice()


def test_layers_that_share_their_parameters_still_do(train_arguments, tmp_path, capsys):
    shared = ("--arch", "transformer_small", *TINY, "--encoder-layer-groups", 1)
    run_command("fairseq-train", *train_arguments, *shared, "--save-dir", tmp_path)
    checkpoint = tmp_path / "checkpoint_1_2.pt"
    assert run(checkpoint, tmp_path / "f.pt", "--rank", 3) == 0
    table = capsys.readouterr().out
    model, plain = model_of(tmp_path / "f.pt")[0], model_of(checkpoint)[0]
    first, second = (model.encoder.layers[i].fc1 for i in (0, 1))
    assert first.up.weight is second.up.weight
    numbers = [sum(p.numel() for p in each.parameters()) for each in (model, plain)]
    assert [line.split()[:2] for line in table.splitlines()[-1:]] == [[f"{number:,}" for number in numbers]]
