"""Learning from hidden states by the real commands: maps, schedules, stops, two processes."""

import re

import pytest
import torch

from tests.conftest import PLUGIN, TINY, run_command, train_in_two_processes
from tests.hidden_states import CONVOLUTION, FOUR_HEADS, INSIDE, LAYERS, NARROW, TERMS, arguments


def last(pattern, text):
    return float(re.findall(pattern, text)[-1])


@pytest.mark.parametrize(
    ("extra", "maps"),
    [
        (["--cosine-weight", 1], None),  # the triple loss
        (
            [*LAYERS, *NARROW, "--cosine-weight", 1, "--autocast-dtype", "bfloat16"],
            [f"maps.linear.{part}" for part in ("encoder_0", "encoder_1", "decoder_0", "encoder_last", "decoder_last")],
        ),
        (["--attention-weight", 1, *FOUR_HEADS], None),
        (
            ["--attention-weight", 1, *FOUR_HEADS, *CONVOLUTION],
            [f"maps.heads.{kind}" for kind in ("encoder", "decoder", "cross")],
        ),
    ],
    ids=["triple", "features", "group", "convolution"],
)  # fmt: skip
def test_it_trains_and_logs_and_its_maps_are_not_the_student(extra, maps, train_arguments, teacher, data_bin, tmp_path):
    given = [option for option in train_arguments if option != "--disable-validation"]
    log = run_command("fairseq-train", *arguments(given, teacher, *extra), "--save-dir", tmp_path).stdout
    wanted = [term for term in TERMS if f"--{term.replace('_', '-')}-weight" in extra]
    for term in wanted:
        assert last(rf"[ |]{term}_loss[= ]([\d.]+)", log) > 0
        assert "valid on 'valid' subset" in log
    path = tmp_path / "checkpoint_1_2.pt"
    state, plain = torch.load(path, weights_only=False), torch.load(teacher, weights_only=False)
    assert list(state["model"]) == list(plain["model"])
    assert sorted(state["criterion"] or []) == sorted(maps or [])
    run_command("fairseq-compress", "materialize", "--checkpoint", path, "--output", tmp_path / "plain.pt")
    assert torch.load(tmp_path / "plain.pt", weights_only=False)["criterion"] is None
    translated = run_command(
        "fairseq-generate", data_bin, "--user-dir", PLUGIN, "--task", "translation", "-s", "en", "-t", "cs", "--cpu",
        "--path", path, "--gen-subset", "test1", "--beam", 2, "--max-len-b", 3,
    ).stdout  # fmt: skip
    assert len(re.findall("^H-", translated, re.M)) == 5


@pytest.mark.parametrize("kind", ["joint", "progressive"])
def test_stop_and_resume_is_bit_equal(kind, train_arguments, teacher, tmp_path):
    """Weights, maps and optimizer, with a stop in the middle of the transfer."""
    extra = [*LAYERS, *NARROW, "--transfer", kind, "--transfer-updates", 3, "--dropout", 0.2]
    base = [option for option in arguments(train_arguments, teacher, *extra) if option != "--no-last-checkpoints"]
    states = []
    for name, stops in (("whole", [4]), ("resumed", [2, 4])):
        for updates in stops:
            run_command("fairseq-train", *base, "--max-update", updates, "--save-dir", tmp_path / name)
        states.append(torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=False))
    start = torch.load(tmp_path / "resumed" / "checkpoint_1_2.pt", weights_only=False)
    for part in ("model", "criterion"):
        for key, whole in states[0][part].items():
            assert torch.equal(whole, states[1][part][key]), key
    first, second = (state["last_optimizer_state"]["state"] for state in states)
    assert all(torch.equal(first[i]["exp_avg"], second[i]["exp_avg"]) for i in first)
    assert not torch.equal(start["criterion"]["maps.linear.decoder_0"], states[0]["criterion"]["maps.linear.decoder_0"])


def test_maps_start_anew_from_a_training_with_others(train_arguments, teacher, tmp_path):
    """The last hidden states were mapped, now layers are: fairseq alone would say that architectures do not match."""
    first = arguments(train_arguments, teacher, *NARROW, "--cosine-weight", 1)
    run_command("fairseq-train", *first, "--save-dir", tmp_path / "first")
    second = arguments(train_arguments, teacher, *NARROW, "--feature-weight", 1)
    start = ["--finetune-from-model", tmp_path / "first" / "checkpoint_1_2.pt", "--save-dir", tmp_path / "second"]
    log = run_command("fairseq-train", *second, *start).stdout
    assert "does not have these maps from student to teacher: they start anew" in log


def test_maps_start_anew_from_a_training_without_them(train_arguments, teacher, tmp_path):
    narrow = [*train_arguments, "--arch", "transformer_small", *TINY, *NARROW]
    run_command("fairseq-train", *narrow, "--save-dir", tmp_path / "plain")
    start = ["--finetune-from-model", tmp_path / "plain" / "checkpoint_1_2.pt", "--save-dir", tmp_path / "tuned"]
    log = run_command("fairseq-train", *arguments(train_arguments, teacher, *NARROW, *LAYERS, *start)).stdout
    assert "the checkpoint does not have these maps from student to teacher: they start anew" in log
    assert torch.load(tmp_path / "tuned" / "checkpoint_1_2.pt", weights_only=False)["criterion"]


@pytest.mark.parametrize("heads", ["group", "convolution"])
def test_two_processes_give_the_step_of_one(heads, train_arguments, teacher, tmp_path):
    """One plain SGD step on two batches: two gloo processes with a batch each, or one that accumulates both."""
    extra = [
        *INSIDE,
        *NARROW,
        *FOUR_HEADS,
        "--attention-head-map",
        heads,
        "--clip-norm",
        0,
        "--ddp-backend",
        "legacy_ddp",
    ]
    base = arguments(train_arguments, teacher, *extra)
    base[base.index("adam")] = "sgd"
    run_command("fairseq-train", *base, "--update-freq", 2, "--lr", "0.0", "--save-dir", tmp_path / "start")
    run_command("fairseq-train", *base, "--lr", "0.1", "--update-freq", 2, "--save-dir", tmp_path / "one")
    train_in_two_processes(*base, "--lr", "0.1", "--update-freq", 1, "--save-dir", tmp_path / "two")
    start, one, two = (
        torch.load(tmp_path / name / "checkpoint_1_2.pt", weights_only=False) for name in ("start", "one", "two")
    )
    for part in ("model", "criterion"):
        for key, weight in one[part].items():
            torch.testing.assert_close(two[part][key], weight, rtol=1e-4, atol=1e-5, msg=key)
        assert max((one[part][key] - start[part][key]).abs().max().item() for key in one[part]) > 1e-3


def test_cached_words_triple_loss_and_a_start_from_the_teacher(train_arguments, teacher, data_bin, tmp_path):
    """All at once, stopped and resumed: the numbers of an uninterrupted run."""
    cache = tmp_path / "cache"
    run_command("fairseq-compress", "cache-teacher", "--teacher-path", teacher, "--data", data_bin, "--output", cache)
    extra = ["--teacher-cache", cache, "--kd-weight", 5, "--gold-weight", 2, "--cosine-weight", 1, "--dropout", 0.2,
             *NARROW, "--init-from-teacher", teacher, "--init-widths", "svd"]  # fmt: skip
    base = [option for option in arguments(train_arguments, teacher, *extra) if option != "--no-last-checkpoints"]
    states = []
    for name, stops in (("whole", [4]), ("resumed", [2, 4])):
        for updates in stops:
            log = run_command("fairseq-train", *base, "--max-update", updates, "--save-dir", tmp_path / name).stdout
            assert "encoder.layers.1 <- encoder.layers.1: projected (svd)" in log
        states.append(torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=False))
    for part in ("model", "criterion"):
        assert states[0][part].keys() == states[1][part].keys()
        for key, whole in states[0][part].items():
            assert torch.equal(whole, states[1][part][key]), key
