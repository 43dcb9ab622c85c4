"""Learning from hidden states by the real commands: maps, schedules, stops, two processes."""

import re

import pytest
import torch

from tests.conftest import PLUGIN, TINY, run_command, train_in_two_processes
from tests.helpers.hidden_states import CONVOLUTION, FOUR_HEADS, INSIDE, LAYERS, NARROW, TERMS, arguments, start


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
            [f"maps.heads.{kind}.{name}" for kind in ("encoder", "decoder", "cross") for name in ("weight", "bias")],
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
    """Weights, maps and optimizer, with stops in the layer phase, at its end and after the first update that follows.

    The embeddings stay the teacher's in the layer phase, and the optimizer of what follows is a new one.
    """
    extra = [*LAYERS, *NARROW, "--transfer", kind, "--transfer-updates", 3, "--dropout", 0.2, "--weight-decay", 0.1,
             "--update-freq", 2, "--adam-betas", "(0.9, 0.98)", *start(teacher, "--init-widths", "svd")]  # fmt: skip
    base = [option for option in arguments(train_arguments, teacher, *extra) if option != "--no-last-checkpoints"]
    base[base.index("--save-interval-updates") + 1] = "1"
    for name, stops in (("whole", [6]), ("resumed", [1, 3, 4, 6])):
        for updates in stops:
            run_command("fairseq-train", *base, "--max-update", updates, "--save-dir", tmp_path / name)
    ends = [torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=False) for name in ("whole", "resumed")]
    assert_same(*ends)
    states = {
        update: torch.load(path, weights_only=False)
        for update in range(1, 7)
        for path in (tmp_path / "whole").glob(f"checkpoint_*_{update}.pt")
    }
    tables = [states[update]["model"]["encoder.embed_tokens.weight"] for update in (1, 3, 6)]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[1], tables[2])
    trained = [len(states[update]["last_optimizer_state"]["state"]) for update in (3, 4)]
    assert trained[0] < trained[1] == len(states[4]["last_optimizer_state"]["param_groups"][0]["params"])
    for update, age in ((3, 3), (4, 1), (6, 3)):
        moments = states[update]["last_optimizer_state"]["state"].values()
        assert max(moment["step"] for moment in moments) == age
    for moment in states[4]["last_optimizer_state"]["state"].values():  # of one gradient
        torch.testing.assert_close(moment["exp_avg_sq"], 0.02 * (moment["exp_avg"] / 0.1) ** 2, rtol=1e-4, atol=1e-12)


def assert_same(first, second):
    for part in ("model", "criterion"):
        for key, whole in first[part].items():
            assert torch.equal(whole, second[part][key]), key
    one, other = (state["last_optimizer_state"]["state"] for state in (first, second))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[i][name], other[i][name]) for i in one for name in ("exp_avg", "exp_avg_sq"))


SCHEDULES = {
    "inverse_sqrt": (["--warmup-updates", 2, "--warmup-init-lr", 1e-4], [1e-4, 5.5e-4, 1e-3, 1e-3 * (2 / 3) ** 0.5]),
    "polynomial_decay": (["--warmup-updates", 2, "--total-num-update", 4], [0.0, 5e-4, 1e-3, 5e-4]),
    "fixed": (["--warmup-updates", 2], [5e-4, 1e-3, 1e-3, 1e-3]),
    "cosine": (
        ["--warmup-updates", 2, "--warmup-init-lr", 1e-4, "--lr-period-updates", 4],
        [1e-4, 5.5e-4, 1e-3, 8.536e-4],
    ),
}


@pytest.mark.parametrize("scheduler", SCHEDULES)
def test_the_schedule_begins_after_the_layer_phase(scheduler, train_arguments, teacher, tmp_path):
    """--lr 1e-3: three stages of two updates, each of which begins at that rate, then the schedule from its start."""
    options, after = SCHEDULES[scheduler]
    extra = [*LAYERS, "--transfer", "progressive", "--transfer-updates", 6, *start(teacher), "--max-update", 9]
    given = [
        *arguments(train_arguments, teacher, *extra),
        "--lr-scheduler",
        scheduler,
        "--save-dir",
        tmp_path,
        *options,
    ]
    given += ["--max-update", "9", "--log-format", "json", "--update-freq", 2, "--no-save"]
    log = run_command("fairseq-train", *given).stdout
    # Each line tells of the update made, and the learning rate of the next.
    found = [float(rate) for rate in re.findall(r'"num_updates": "\d+", "lr": "([^"]+)"', log)]
    stage = [1e-3, 1e-3 * (0.9 + 0.1 * 0.5**0.5)]
    assert found == pytest.approx([*(stage * 3)[1:], *after], rel=1e-3)


def test_a_schedule_that_cannot_begin_again_is_refused(train_arguments, teacher, tmp_path):
    extra = [*LAYERS, "--transfer", "joint", "--transfer-updates", 2, *start(teacher), "--save-dir", tmp_path]
    given = arguments(train_arguments, teacher, *extra, "--lr-scheduler", "reduce_lr_on_plateau")
    result = run_command("fairseq-train", *given, check=False)
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1].endswith("in a training of two phases, got reduce_lr_on_plateau")


def test_two_processes_go_through_the_phases_of_one(train_arguments, teacher, tmp_path):
    """SGD with momentum: three stages of an update, then three more updates, whose momentum is new."""
    extra = [*LAYERS, *NARROW, *start(teacher, "--init-widths", "svd"), "--transfer", "progressive", "--clip-norm", 0,
             "--transfer-updates", 3, "--ddp-backend", "legacy_ddp", "--momentum", 0.9, "--lr", 0.1]  # fmt: skip
    base = arguments(train_arguments, teacher, *extra)
    base[base.index("adam")] = "sgd"
    base[base.index("--save-interval-updates") + 1] = "6"
    run_command("fairseq-train", *base, "--max-update", 6, "--update-freq", 2, "--save-dir", tmp_path / "one")
    train_in_two_processes(*base, "--max-update", 6, "--save-dir", tmp_path / "two")
    one, two = (
        torch.load(next((tmp_path / name).glob("checkpoint_*_6.pt")), weights_only=False) for name in ("one", "two")
    )
    for part in ("model", "criterion"):
        for key, weight in one[part].items():
            torch.testing.assert_close(two[part][key], weight, rtol=1e-4, atol=1e-5, msg=key)


def test_maps_start_anew_from_a_training_with_others(train_arguments, teacher, tmp_path):
    """The last hidden states were mapped, now layers are: fairseq alone would say that architectures do not match."""
    first = arguments(train_arguments, teacher, *NARROW, "--cosine-weight", 1)
    run_command("fairseq-train", *first, "--save-dir", tmp_path / "first")
    second = arguments(train_arguments, teacher, *NARROW, "--feature-weight", 1)
    start = ["--finetune-from-model", tmp_path / "first" / "checkpoint_1_2.pt", "--save-dir", tmp_path / "second"]
    log = run_command("fairseq-train", *second, *start).stdout
    assert "does not have these maps from student to teacher: they start again" in log


def test_maps_start_anew_from_a_training_without_them(train_arguments, teacher, tmp_path):
    narrow = [*train_arguments, "--arch", "transformer_small", *TINY, *NARROW]
    run_command("fairseq-train", *narrow, "--save-dir", tmp_path / "plain")
    start = ["--finetune-from-model", tmp_path / "plain" / "checkpoint_1_2.pt", "--save-dir", tmp_path / "tuned"]
    log = run_command("fairseq-train", *arguments(train_arguments, teacher, *NARROW, *LAYERS, *start)).stdout
    assert "the checkpoint does not have these maps from student to teacher: they start again" in log
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
    run_command("fairseq-compress", "cache-teacher", "--checkpoint", teacher, "--data", data_bin, "--output", cache)
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
