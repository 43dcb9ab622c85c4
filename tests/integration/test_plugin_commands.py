"""The commands of fairseq with the plugin loaded: every registered thing trains, translates, validates."""

import re

import pytest
import torch

from fairseq_compress.functional.autocast import native_autocast
from tests.conftest import PLUGIN, ROOT, TINY, run_command, train_under_torchrun

PLUGIN_OPTIONS = ["--user-dir", str(PLUGIN), "--task", "compressed_translation", "-s", "en", "-t", "cs", "--cpu"]


def last(pattern: str, text: str) -> float:
    return float(re.findall(pattern, text)[-1])


@pytest.mark.parametrize(
    "architecture",
    ["transformer_small", "transformer_student_tiny", "transformer_student_base_memory", "transformer_student_base"],
)
def test_every_architecture_trains_at_its_full_size(architecture, train_arguments, tmp_path):
    run_command("fairseq-train", *train_arguments, "--arch", architecture, "--save-dir", tmp_path)
    state = torch.load(tmp_path / "checkpoint_1_2.pt", weights_only=False)
    assert state["optimizer_history"][-1]["num_updates"] == 2
    assert all(torch.isfinite(weight).all() for weight in state["model"].values())


@pytest.mark.parametrize("dtype", ["none", "auto", "bfloat16"])
def test_word_level_kd_trains_and_logs_its_parts(dtype, train_arguments, teacher, tmp_path):
    options = ["--teacher-path", teacher, "--kd-temperature", 2, "--kd-alpha", 0.5, "--label-smoothing", 0.1]
    log = run_command(
        "fairseq-train", *train_arguments, "--arch", "transformer_small", *TINY, "--criterion", "word_level_kd",
        *options, "--autocast-dtype", dtype, "--save-dir", tmp_path,
    ).stdout  # fmt: skip
    loss, gold, kd = (last(rf"[ |]{name}[= ]([\d.]+)", log) for name in ("loss", "gold_loss", "kd_loss"))
    assert loss == pytest.approx(0.5 * gold + 0.5 * 4 * kd, abs=0.01)
    assert 0 <= last(r"teacher_agreement[= ]([\d.]+)", log) <= 100
    assert kd > 0

    state = torch.load(tmp_path / "checkpoint_1_2.pt", weights_only=False)
    kept = native_autocast("cpu") if dtype == "auto" else dtype
    assert state["cfg"]["task"]["autocast_dtype"] == state["task_state"]["autocast_dtype"] == kept
    plain = torch.load(teacher, weights_only=False)
    assert list(state["model"]) == list(plain["model"])  # the same keys: nothing of the teacher came along
    assert not state.get("criterion")
    assert all(weight.dtype == torch.float32 for weight in state["model"].values() if weight.is_floating_point())


def test_an_ensemble_of_teachers_is_the_mean_of_probabilities(train_arguments, teacher, tmp_path):
    """Twice the same teacher must equal one teacher, up to rounding."""
    losses = []
    for paths in (f"{teacher}", f"{teacher}:{teacher}"):
        log = run_command(
            "fairseq-train", *train_arguments, "--arch", "transformer_small", *TINY, "--criterion", "word_level_kd",
            "--teacher-path", paths, "--save-dir", tmp_path / str(len(paths)),
        ).stdout  # fmt: skip
        losses.append(last(r"kd_loss[= ]([\d.]+)", log))
    assert losses[0] == pytest.approx(losses[1], abs=0.002)


@pytest.mark.parametrize(("subset", "lines"), [("test", 1), ("test1", 5), ("test2", 9), ("test3", 1071)])
@pytest.mark.parametrize("task", ["translation", "compressed_translation"])
def test_generate_translates_every_line(task, subset, lines, data_bin, teacher):
    log = run_command(
        "fairseq-generate", data_bin, "--user-dir", PLUGIN, "--task", task, "-s", "en", "-t", "cs", "--cpu", "--path",
        teacher, "--gen-subset", subset, "--beam", 1, "--max-len-b", 3, "--required-batch-size-multiple", 8,
        "--max-tokens", 3000,
    ).stdout  # fmt: skip
    numbers = sorted(int(line.split("\t")[0][2:]) for line in log.splitlines() if line.startswith("H-"))
    assert numbers == list(range(lines))


def test_interactive_translates_every_line_with_autocast(data_bin, teacher, tmp_path):
    (tmp_path / "in.en").write_text("".join(f"a1 a{n}\n" for n in range(9)))
    log = run_command(
        "fairseq-interactive", data_bin, *PLUGIN_OPTIONS, "--path", teacher, "--input", tmp_path / "in.en",
        "--beam", 2, "--max-len-b", 5, "--buffer-size", 9, "--max-tokens", 1000, "--autocast-dtype", "bfloat16",
    ).stdout  # fmt: skip
    numbers = [line.split("\t")[0] for line in log.splitlines() if line.startswith("D-")]
    assert numbers == [f"D-{n}" for n in range(9)]


def test_validate_scores_every_pair(data_bin, teacher):
    """9 pairs in one batch: stock fairseq scores 8 of them, and so another loss, with a multiple of 8."""
    results = []
    for multiple in (1, 8):
        log = run_command(
            "fairseq-validate", data_bin, *PLUGIN_OPTIONS, "--path", teacher, "--valid-subset", "test2",
            "--max-tokens", 3000, "--required-batch-size-multiple", multiple,
        ).stdout  # fmt: skip
        results.append([last(rf"'test2' subset.*\| {name} ([\d.]+)", log) for name in ("loss", "wpb", "bsz")])
    assert results[0] == results[1]
    assert results[0][-1] == 9


def test_hydra_train_from_our_yaml(data_bin, teacher, tmp_path):
    sizes = [argument[2:].replace("-", "_") for argument in TINY[::2]]
    log = run_command(
        "fairseq-hydra-train", "--config-dir", ROOT / "configs" / "hydra", "--config-name", "word_level_kd",
        f"hydra.run.dir={tmp_path}/hydra", f"common.user_dir={PLUGIN}", "common.cpu=true", f"task.data={data_bin}",
        f"criterion.teacher_path={teacher}", f"checkpoint.save_dir={tmp_path}/out", "optimization.max_update=2",
        "dataset.max_tokens=120", "task.autocast_dtype=bfloat16", "+model.embedding_rank=5",
        *(f"+model.{name}={value}" for name, value in zip(sizes, TINY[1::2], strict=True)),
    ).stdout  # fmt: skip
    checkpoint = tmp_path / "out" / "checkpoint_last.pt"
    assert checkpoint.is_file(), log
    state = torch.load(checkpoint, weights_only=True)
    assert state["cfg"]["task"]["autocast_dtype"] == "bfloat16"
    assert state["model"]["encoder.embed_tokens.table.weight"].size(1) == 5
    translated = run_command(
        "fairseq-generate", data_bin, *PLUGIN_OPTIONS, "--path", checkpoint, "--gen-subset", "test1", "--beam", 1,
        "--max-len-b", 3,
    ).stdout  # fmt: skip
    assert sum(line.startswith("H-") for line in translated.splitlines()) == 5


@pytest.mark.parametrize("stop", [2, 6], ids=["inside the first epoch", "in a later epoch"])
def test_stop_and_resume_is_bit_equal(stop, train_arguments, teacher, tmp_path):
    """Eight updates at once, or with a stop: equal weights, optimizer and all, with dropout and KD.

    An epoch has four or five updates, so the resumed run goes over the ends of epochs.
    """
    base = [argument for argument in train_arguments if argument != "--no-last-checkpoints"]
    base[base.index("--max-tokens") + 1] = "240"
    options = [*TINY, "--arch", "transformer_small", "--dropout", "0.2", "--criterion", "word_level_kd",
               "--teacher-path", teacher, "--autocast-dtype", "bfloat16"]  # fmt: skip
    states = []
    for name, stops in (("whole", [8]), ("resumed", [stop, 8])):
        for updates in stops:
            run_command("fairseq-train", *base, *options, "--max-update", updates, "--save-dir", tmp_path / name)
        states.append(torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=False))
        assert states[-1]["optimizer_history"][-1]["num_updates"] == 8
    assert states[0]["extra_state"]["train_iterator"]["epoch"] >= 2
    for key, whole in states[0]["model"].items():
        assert torch.equal(whole, states[1]["model"][key]), key
    first, second = (state["last_optimizer_state"]["state"] for state in states)
    assert all(torch.equal(first[i]["exp_avg"], second[i]["exp_avg"]) for i in first)


def test_two_processes_give_the_gradient_of_one(train_arguments, teacher, tmp_path):
    """One plain SGD step on two batches: two gloo processes with a batch each, or one that accumulates both."""
    base = [*train_arguments, *TINY, "--arch", "transformer_small", "--dropout", 0, "--criterion", "word_level_kd",
            "--teacher-path", teacher, "--lr", "1.0", "--clip-norm", 0, "--ddp-backend", "legacy_ddp"]  # fmt: skip
    base[base.index("adam")] = "sgd"
    run_command("fairseq-train", *base, "--update-freq", 2, "--lr", "0.0", "--save-dir", tmp_path / "start")
    run_command("fairseq-train", *base, "--update-freq", 2, "--save-dir", tmp_path / "one")
    train_under_torchrun(*base, "--update-freq", 1, "--save-dir", tmp_path / "two")
    start, one, two = (
        torch.load(tmp_path / name / "checkpoint_1_2.pt", weights_only=False)["model"]
        for name in ("start", "one", "two")
    )
    for key, weight in one.items():
        torch.testing.assert_close(two[key], weight, rtol=1e-5, atol=1e-6, msg=key)
    moved = max((one[key] - start[key]).abs().max().item() for key in one)
    assert moved > 1e-3  # far more than the tolerance above
