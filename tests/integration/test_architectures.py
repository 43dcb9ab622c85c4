"""Every architecture by the real commands: training with teachers, stop and resume, averages, fairseq-generate."""

import re

import pytest
import torch

from fairseq_compress.checkpoint.load import load_state
from tests.conftest import PLUGIN, TINY, run_command, train_in_two_processes

STUDENT = ["--arch", "transformer_small", *TINY]
WORD_KD = ["--criterion", "word_level_kd", "--kd-alpha", "0.5"]
KINDS = {
    "factorized": ["--embedding-rank", "4"],
    "tensor-train": ["--tensor-train-rank", "3"],
    "low-rank": ["--ffn-rank", "4", "--linear-ranks", "decoder.*.q_proj=2,*.out_proj=3"],
    "shared": ["--encoder-layer-groups", "1"],
    "bottleneck": [
        *("--bottleneck-width", "8", "--ffn-stack", "2", "--bottleneck-norm", "elementwise"),
        *("--embedding-rank", "6", "--embedding-convolution", "3"),
    ],
    "sparse": ["--sparsity", "0.5", "--sparse-block", "8", "--sparse-layout", "watts_strogatz"],
    "ssru": ["--decoder-self-attention", "ssru"],
    "average": ["--decoder-self-attention", "average", "--average-attention-ffn", "12"],
}
PLAIN = ("factorized", "tensor-train", "low-rank", "shared", "sparse")  # what a plain transformer can compute
GENERATE = ("-s", "en", "-t", "cs", "--cpu", "--gen-subset", "test2", "--beam", 3, "--max-len-b", 12)


def hypotheses(path, data_bin, *options):
    log = run_command("fairseq-generate", data_bin, "--path", path, *GENERATE, *options).stdout
    found = sorted(line for line in log.splitlines() if line.startswith("H-"))
    assert len(found) == 9
    return [(line.split("\t")[0], line.split("\t")[2]) for line in found]


@pytest.fixture(scope="module", params=KINDS)
def trained(request, train_arguments, teacher, tmp_path_factory):
    """The folder of a training of 4 updates in two parts, with checkpoints at 2 and 4, and its kind."""
    folder = tmp_path_factory.mktemp(request.param)
    base = [option for option in train_arguments if option != "--no-last-checkpoints"]
    options = [*STUDENT, *KINDS[request.param], *WORD_KD, "--teacher-path", teacher, "--save-dir", folder]
    for updates in (2, 4):
        run_command("fairseq-train", *base, *options, "--max-update", updates)
    return folder, request.param


def test_averages_are_translated_by_fairseq_generate(trained, data_bin):
    folder, kind = trained
    run_command("fairseq-compress", "average", "--checkpoint", folder / "checkpoint_1_2.pt",
                folder / "checkpoint_1_4.pt", "--output", folder / "average.pt")  # fmt: skip
    ours = hypotheses(folder / "average.pt", data_bin, "--user-dir", PLUGIN)
    if kind not in PLAIN:
        refused = run_command("fairseq-compress", "materialize", "--checkpoint", folder / "average.pt", "--output",
                              folder / "plain.pt", check=False)  # fmt: skip
        assert refused.returncode == 1
        assert "cannot be a plain transformer" in refused.stdout
        return
    run_command("fairseq-compress", "materialize", "--checkpoint", folder / "average.pt", "--output", folder / "p.pt")
    assert hypotheses(folder / "p.pt", data_bin, "--required-batch-size-multiple", 1) == ours


def test_a_resumed_training_is_the_whole_one(trained, train_arguments, teacher, tmp_path):
    folder, kind = trained
    options = [*STUDENT, *KINDS[kind], *WORD_KD, "--teacher-path", teacher, "--save-dir", tmp_path]
    base = [option for option in train_arguments if option != "--no-last-checkpoints"]
    run_command("fairseq-train", *base, *options, "--max-update", 4)
    whole, resumed = (load_state(path / "checkpoint_last.pt") for path in (tmp_path, folder))
    assert whole["model"].keys() == resumed["model"].keys()
    for key, value in whole["model"].items():
        assert torch.equal(value, resumed["model"][key]), key


def test_it_starts_from_a_teacher_by_the_closest_weights(train_arguments, teacher, tmp_path):
    start = ["--init-from-teacher", teacher, "--lr", 0]
    kinds = [*KINDS["factorized"], "--ffn-rank", "4", *KINDS["shared"], *KINDS["ssru"]]
    log = run_command("fairseq-train", *train_arguments, *STUDENT, *kinds, *start, "--save-dir", tmp_path).stdout
    state, theirs = (load_state(path)["model"] for path in (tmp_path / "checkpoint_1_2.pt", teacher))
    weight = theirs["encoder.layers.0.fc1.weight"]
    made = state["encoder.layers.0.fc1.up.weight"] @ state["encoder.layers.0.fc1.down.weight"]
    tail = torch.linalg.svdvals(weight.double())[4:].square().sum().sqrt()
    torch.testing.assert_close((weight - made).double().norm(), tail, atol=1e-5, rtol=1e-4)
    assert torch.equal(state["encoder.layers.0.fc1.up.bias"], theirs["encoder.layers.0.fc1.bias"])
    assert torch.equal(state["encoder.layers.0.fc2.up.bias"], theirs["encoder.layers.0.fc2.bias"])
    error = float(tail / weight.norm())
    told = re.findall(r"encoder\.layers\.0 <- encoder\.layers\.0: copied, approximated with a relative error of up to "
                      r"([\d.]+)", log)  # fmt: skip
    assert len(told) == 1
    assert float(told[0]) >= error - 1e-3
    assert "left as initialized: decoder.layers.0.self_attn" in log


def test_a_bottleneck_learns_from_its_teacher_layer_by_layer(train_arguments, tmp_path, data_bin):
    sizes = ["--encoder-layers", 2, "--decoder-layers", 1, "--encoder-embed-dim", 16, "--decoder-embed-dim", 16,
             "--encoder-attention-heads", 2, "--decoder-attention-heads", 2, "--embedding-rank", 6]  # fmt: skip
    teacher = [*sizes, "--arch", "transformer_inverted_bottleneck", "--bottleneck-width", 32,
               "--encoder-ffn-embed-dim", 48]  # fmt: skip
    run_command("fairseq-train", *train_arguments, *teacher, "--save-dir", tmp_path / "teacher")
    student = [*sizes, "--arch", "transformer_bottleneck", "--bottleneck-width", 8, "--encoder-ffn-embed-dim", 8]
    objective = ["--criterion", "hidden_state_kd", "--teacher-path", tmp_path / "teacher" / "checkpoint_1_2.pt",
                 "--feature-weight", 1, "--attention-weight", 1]  # fmt: skip
    run_command("fairseq-train", *train_arguments, *student, *objective, "--save-dir", tmp_path / "student")
    state = load_state(tmp_path / "student" / "checkpoint_1_2.pt")
    assert not state["criterion"]  # widths are equal: no maps
    assert state["model"]["encoder.layers.0.ffns.3.fc1.weight"].shape == (8, 8)
    # As MobileBERT: from the teacher's embeddings, which the layer phase leaves as they are.
    phase = ["--transfer", "progressive", "--transfer-updates", 3, "--init-from-teacher", objective[3],
             "--save-dir", tmp_path / "progressive"]  # fmt: skip
    refused = run_command("fairseq-train", *train_arguments, *student, *objective, *phase, check=False)
    assert "--init-layers: must be 'encoder:none decoder:none', with --init-widths refuse, for a" in refused.stdout
    none = ["--init-layers", "encoder:none decoder:none"]
    run_command("fairseq-train", *train_arguments, *student, *objective, *phase, *none)
    weights, theirs = (
        load_state(path)["model"] for path in (tmp_path / "progressive" / "checkpoint_1_2.pt", objective[3])
    )
    tables = [name for name in weights if ".embed_tokens." in name]
    assert tables
    assert all(torch.equal(weights[name], theirs[name]) for name in tables)


def test_a_low_rank_model_is_materialized_whatever_its_weights(train_arguments, tmp_path):
    """One product in place of two changes digits in float32 by more than the tolerance."""
    small = ["--arch", "transformer_small", "--ffn-rank", 32, "--attention-rank", 32, "--embedding-rank", 32]
    run_command("fairseq-train", *train_arguments, *small, "--save-dir", tmp_path)
    state = torch.load(tmp_path / "checkpoint_1_2.pt", weights_only=False)
    state["model"] = {key: value * 2 if value.dim() == 2 else value for key, value in state["model"].items()}
    torch.save(state, tmp_path / "large.pt")
    log = run_command("fairseq-compress", "materialize", "--checkpoint", tmp_path / "large.pt", "--output",
                      tmp_path / "plain.pt").stdout  # fmt: skip
    assert "transformer, 3+3 layers, width 256" in log
    weights = load_state(tmp_path / "plain.pt")["model"]
    assert weights["encoder.layers.0.fc1.weight"].dtype == torch.float32
    assert weights["encoder.embed_tokens.weight"].shape[1] == 256


def test_a_model_with_a_convolution_is_factorized_but_for_its_narrow_table(train_arguments, tmp_path):
    convolution = ["--embedding-rank", 6, "--embedding-convolution", 3]
    run_command("fairseq-train", *train_arguments, *STUDENT, *convolution, "--save-dir", tmp_path)
    factorize = [
        "factorize",
        "--checkpoint",
        tmp_path / "checkpoint_1_2.pt",
        "--output",
        tmp_path / "f.pt",
        "--rank",
        3,
    ]
    run_command("fairseq-compress", *factorize)
    assert load_state(tmp_path / "f.pt")["model"]["encoder.layers.0.fc1.up.weight"].shape == (24, 3)
    refused = run_command("fairseq-compress", *factorize, "--embedding-rank", 3, check=False)
    assert refused.returncode == 1
    assert "--embedding-rank: must not be given for embeddings behind a convolution" in refused.stdout


def test_two_processes(train_arguments, teacher, tmp_path):
    kinds = [*KINDS["tensor-train"], *KINDS["shared"], *KINDS["ssru"], "--ffn-rank", 4]
    options = [*STUDENT, *kinds, *WORD_KD, "--teacher-path", teacher, "--ddp-backend", "legacy_ddp"]
    train_in_two_processes(*train_arguments, *options, "--save-dir", tmp_path)
    assert all(torch.isfinite(value).all() for value in load_state(tmp_path / "checkpoint_1_2.pt")["model"].values())


def test_a_plan_quantizes_the_factors(train_arguments, tmp_path, data_bin):
    (tmp_path / "plan.yaml").write_text("weights:\n  - {modules: ['*'], bits: 8}\n")
    kinds = [*KINDS["factorized"], "--ffn-rank", 4, *KINDS["shared"], *KINDS["ssru"]]
    run_command("fairseq-train", *train_arguments, *STUDENT, *kinds, "--compression-plan", tmp_path / "plan.yaml",
                "--save-dir", tmp_path)  # fmt: skip
    path = tmp_path / "checkpoint_1_2.pt"
    run_command("fairseq-compress", "quantize", "--checkpoint", path, "--output", tmp_path / "packed.safetensors")
    unpacked, packed = (hypotheses(p, data_bin, "--user-dir", PLUGIN) for p in (path, tmp_path / "packed.safetensors"))
    assert unpacked == packed
    table = run_command("fairseq-compress", "describe", "--checkpoint", tmp_path / "packed.safetensors").stdout
    assert "encoder.layers.0.fc1.down.weight" in table
    assert "encoder.layers.1.fc1" not in table
