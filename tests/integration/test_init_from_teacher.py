"""fairseq-train --init-from-teacher: what the first checkpoint holds, what is printed, what is refused."""

import pytest
import torch

from fairseq_compress.checkpoint.load import load_state
from tests.conftest import PLUGIN, TINY, binarize, run_command, write_pair

ARCHITECTURE = ["--arch", "transformer_small", *TINY]
NARROW = [
    *("--arch", "transformer_small", "--encoder-layers", 1, "--decoder-layers", 1, "--encoder-embed-dim", 8),
    *("--encoder-ffn-embed-dim", 10, "--encoder-attention-heads", 2, "--decoder-embed-dim", 8),
    *("--decoder-ffn-embed-dim", 24, "--decoder-attention-heads", 1),
]
PLAN = "weights:\n  - {modules: ['*.layers.*'], bits: 4}\n"


def start(train_arguments, teacher, folder, *options):
    """The log and the weights of a training that moves nothing."""
    log = run_command(
        "fairseq-train", *train_arguments, "--lr", 0, "--init-from-teacher", teacher, "--save-dir", folder, *options
    ).stdout
    return log, load_state(folder / "checkpoint_1_2.pt")["model"]


@pytest.fixture(scope="module")
def packed(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    (folder / "plan.yaml").write_text(PLAN)
    run_command("fairseq-compress", "quantize", "--checkpoint", teacher, "--output", folder / "teacher.safetensors",
                "--plan", folder / "plan.yaml")  # fmt: skip
    return folder / "teacher.safetensors"


def test_a_shallow_student_starts_from_the_chosen_layers(train_arguments, teacher, tmp_path):
    log, state = start(train_arguments, teacher, tmp_path, *ARCHITECTURE, "--encoder-layers", 1, "--init-layers",
                       "encoder:1")  # fmt: skip
    expected = load_state(teacher)["model"]
    for key, value in state.items():
        assert torch.equal(value, expected[key.replace("encoder.layers.0", "encoder.layers.1")]), key
    prefix = f"| start from {teacher}: "
    told = [line.split(prefix)[1] for line in log.splitlines() if prefix in line]
    assert told == [
        "encoder.embed_tokens <- encoder.embed_tokens: copied",
        "encoder.layers.0 <- encoder.layers.1: copied",
        "decoder.embed_tokens <- decoder.embed_tokens: copied",
        "decoder.layers.0 <- decoder.layers.0: copied",
        "decoder.output_projection <- decoder.output_projection: copied",
        "left as initialized: nothing",
        "not taken from it: encoder.layers.0",
    ]


def test_a_narrow_student_with_a_plan_starts_from_a_packed_teacher(train_arguments, packed, data_bin, tmp_path):
    """Of the teacher the values of 4 bits are taken; the checkpoint has the student's plain weights."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    options = [*NARROW, "--init-widths", "svd", "--compression-plan", tmp_path / "plan.yaml", "--init-teacher-data",
               data_bin]  # fmt: skip
    log, state = start(train_arguments, packed, tmp_path, *options)
    table = load_state(packed)["model"]["encoder.embed_tokens.weight"].double()
    left, values, right = torch.linalg.svd(table, full_matrices=False)
    found = state["encoder.embed_tokens.weight"].double()
    assert torch.allclose(found.abs(), (left * values)[:, :8].abs(), atol=1e-5)
    directions = (table.pinverse() @ found).float()
    assert torch.allclose(directions.abs(), right[:8].t().abs().float(), atol=1e-4)
    share = 100 * values[:8].square().sum() / values.square().sum()
    assert f"encoder.embed_tokens <- encoder.embed_tokens: projected (svd), kept energy {share:.1f}%" in log
    assert "left as initialized: nothing" in log
    layer = load_state(packed)["model"]["encoder.layers.0.fc1.weight"][:10]
    assert torch.allclose(state["encoder.layers.0.fc1.weight"], layer @ directions, atol=1e-4)
    translated = run_command(
        "fairseq-generate", data_bin, "--user-dir", PLUGIN, "--cpu", "--path", tmp_path / "checkpoint_1_2.pt",
        "--task", "compressed_translation", "--gen-subset", "test1", "--beam", 1, "--max-len-b", 3,
    ).stdout  # fmt: skip
    assert sum(line.startswith("H-") for line in translated.splitlines()) == 5
    assert "start from" not in translated


def test_slices(train_arguments, teacher, tmp_path):
    _, state = start(train_arguments, teacher, tmp_path, *NARROW, "--init-widths", "slices", "--init-layers",
                     "decoder:none encoder:1")  # fmt: skip
    expected = load_state(teacher)["model"]
    assert torch.equal(state["encoder.embed_tokens.weight"], expected["encoder.embed_tokens.weight"][:, :8])
    rows = [0, 1, 2, 3, 8, 9, 10, 11]  # the teacher has two heads of width 8, the student two of 4
    q_proj = expected["encoder.layers.1.self_attn.q_proj.weight"]
    assert torch.equal(state["encoder.layers.0.self_attn.q_proj.weight"], q_proj[rows][:, :8])
    assert torch.equal(state["encoder.layers.0.fc2.weight"], expected["encoder.layers.1.fc2.weight"][:8, :10])
    fc1 = expected["decoder.layers.0.fc1.weight"]
    assert not torch.equal(state["decoder.layers.0.fc1.weight"], fc1[:, :8])


def test_stop_and_resume_is_bit_equal(train_arguments, teacher, tmp_path):
    base = [argument for argument in train_arguments if argument != "--no-last-checkpoints"]
    options = [*ARCHITECTURE, "--encoder-layers", 1, "--dropout", 0.2, "--init-from-teacher", teacher]
    states = []
    for name, stops in (("whole", [4]), ("resumed", [2, 4])):
        for updates in stops:
            run_command("fairseq-train", *base, *options, "--max-update", updates, "--save-dir", tmp_path / name)
        states.append(torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=False))
    first, second = states
    assert all(torch.equal(value, second["model"][key]) for key, value in first["model"].items())
    moments = [state["last_optimizer_state"]["state"] for state in states]
    assert all(torch.equal(moments[0][i]["exp_avg"], moments[1][i]["exp_avg"]) for i in moments[0])


def refused(train_arguments, folder, *options):
    result = run_command("fairseq-train", *train_arguments, "--save-dir", folder, *options, check=False)
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stdout
    return result.stdout.splitlines()[-1].removeprefix("fairseq-compress: error: ")


def test_all_that_is_wrong_is_in_one_line(train_arguments, teacher, tmp_path):
    write_pair(tmp_path / "other", 30, 7, first="other")
    other = binarize(tmp_path / "other-bin", {"trainpref": str(tmp_path / "other")})
    line = refused(
        train_arguments, tmp_path, *NARROW, "--init-from-teacher", teacher, "--finetune-from-model", teacher,
        "--init-layers", "encoder:2 decoder:", "--init-teacher-data", other,
    )  # fmt: skip
    for problem in (
        "--init-layers: must be parts such as encoder:0,2,4 or decoder:none, separated by a space, got 'decoder:'",
        f"--init-from-teacher: must not be given with --finetune-from-model, whose weights would replace what it "
        f"copies, got {teacher} and {teacher}",
        f"--init-from-teacher {teacher}: the teacher's en dictionary must equal the student's; the first difference is",
        "--init-layers: must name layers 0 to 1 of the teacher's encoder, got 2",
        "--init-widths: must be slices or svd where the student is smaller than the teacher, got refuse and "
        "encoder width 8 from 16",
    ):
        assert problem in line


def test_other_refusals(train_arguments, teacher, tmp_path):
    lonely = refused(train_arguments, tmp_path, *NARROW, "--init-layers", "encoder:0", "--init-widths", "svd")
    assert lonely == (
        "--init-layers: must be given with --init-from-teacher, got encoder:0 alone; "
        "--init-widths: must be given with --init-from-teacher, got svd alone"
    )
    missing = tmp_path / "missing.pt"
    line = refused(train_arguments, tmp_path, *NARROW, "--init-from-teacher", missing, "--init-layers", "x")
    assert line.startswith("--init-layers: must be parts")
    assert line.endswith(f"checkpoint {missing}: no such file")
