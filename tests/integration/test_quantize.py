"""``fairseq-compress quantize``: without training, with ranges of a text, and in stages with training between (iPQ)."""

import argparse
import os
import re
import shlex
import signal
import subprocess
import time

import pytest
import torch

import fairseq_compress
from fairseq_compress.checkpoint.load import load_upgraded
from fairseq_compress.cli.main import main
from fairseq_compress.functional.quantization.linear import LinearScheme, fake_quantize
from fairseq_compress.procedures.training_options import checkpoint_options
from tests.conftest import BIN, TINY, TORCHRUN, UNDER_TORCHRUN, VARIABLES, run_command

STAGES = """
weights:
  - {modules: ["*.fc?", "*.embed_tokens"], method: product, block: 4, centroids: 16, stage: 1}
  - {modules: ["*_proj"], method: product, block: 4, centroids: 8, stage: 5}
"""
SHAPE = ["-s", "en", "-t", "cs", "--arch", "transformer_small", *TINY]
WITHOUT_SHAPE = [
    "--cpu", "--optimizer", "adam", "--lr", "1e-3", "--max-tokens", "240", "--max-update", "4", "--seed", "3",
    "--dropout", "0.2", "--num-workers", "0", "--save-interval-updates", "2", "--no-epoch-checkpoints",
]  # fmt: skip
TRAIN = [*SHAPE, *WITHOUT_SHAPE]


def load(path):
    return torch.load(path, weights_only=False)


def quantize(checkpoint, folder, plan, *options, name="q.pt", check=True):
    (folder / "plan.yaml").write_text(plan)
    return run_command(
        "fairseq-compress", "quantize", "--checkpoint", checkpoint, "--plan", folder / "plan.yaml",
        "--output", folder / name, *options, check=check,
    )  # fmt: skip


def hypotheses(path, data_bin):
    log = run_command(
        "fairseq-generate", data_bin, "--user-dir", "fairseq_compress", "-s", "en", "-t", "cs", "--cpu",
        "--path", path, "--gen-subset", "test2", "--beam", 2, "--max-len-b", 5,
    ).stdout  # fmt: skip
    return re.findall(r"^H-\d+\t.*$", log, re.MULTILINE)


def test_without_training(teacher, data_bin, tmp_path):
    """Master weights stay, what is computed is quantized; the plan is that of the command."""
    quantize(teacher, tmp_path, 'weights: [{modules: ["*"], bits: 4}]')
    state, plain = load(tmp_path / "q.pt"), load(teacher)
    assert all(torch.equal(weight, state["model"][key]) for key, weight in plain["model"].items())
    for key, weight in plain["model"].items():
        if key.endswith("weight") and weight.dim() == 2:
            plain["model"][key] = fake_quantize(weight, LinearScheme(4))
    torch.save(plain, tmp_path / "by_hand.pt")
    assert hypotheses(tmp_path / "q.pt", data_bin) == hypotheses(tmp_path / "by_hand.pt", data_bin)
    quantize(tmp_path / "q.pt", tmp_path, 'weights: [{modules: ["*.fc1"], bits: 5}]', name="other.pt")
    assert '"bits": 5' in load(tmp_path / "other.pt")["cfg"]["model"].compression
    assert '"bits": 4' not in load(tmp_path / "other.pt")["cfg"]["model"].compression


def test_ranges_of_sentences(teacher, data_bin, tmp_path):
    """Each range is that percentile of what a hook on the plain layers sees of the same sentences."""
    plan = 'activations: [{modules: ["*"], decay: 0.9}]'
    options = ["--calibration-data", data_bin, "--calibration-sentences", 50]
    for percent in (100, 90):
        quantize(teacher, tmp_path, plan, *options, "--calibration-percentile", percent, name=f"{percent}.pt")
    quantize(teacher, tmp_path, plan, *options, "--calibration-percentile", 90, "--seed", 2, name="seed.pt")
    quantize(teacher, tmp_path, plan, name="dynamic.pt")
    found = {}
    for name in ("100", "90", "seed", "dynamic"):
        state = load(tmp_path / f"{name}.pt")["model"]
        found[name] = {key: value.item() for key, value in state.items() if key.endswith("largest")}
    assert len(found["90"]) == 2 * 6 + 1 * 10 + 1
    assert all(0 < found["90"][key] < value for key, value in found["100"].items())
    assert found["seed"] != found["90"]
    assert set(found["dynamic"].values()) == {0}


def test_nothing_to_calibrate(teacher, data_bin, tmp_path):
    for plan, options, message in (
        ('weights: [{modules: ["*"]}]', [data_bin], "nothing to calibrate, as the model quantizes no activations"),
        ('activations: [{modules: ["*"]}]', [tmp_path], f"--calibration-data {tmp_path}: cannot be read"),
        (
            'activations: [{modules: ["*"]}]',
            [data_bin, "--calibration-percentile", 0],
            "--calibration-percentile: must be in (0, 100], got 0",
        ),
    ):
        result = quantize(teacher, tmp_path, plan, "--calibration-data", *options, check=False)
        assert result.returncode == 1, result.stdout
        assert message in result.stdout.splitlines()[-1]
        assert not (tmp_path / "q.pt").exists()


@pytest.fixture(scope="module")
def staged(teacher, data_bin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged")
    quantize(teacher, folder, STAGES, "--", data_bin, *TRAIN)
    return folder


def test_stages(staged, teacher):
    """Each stage quantizes its group; centroids of earlier groups and free weights train, assignments stay."""
    states = {
        (stage, name): load(staged / "q.pt.stages" / f"stage-{stage}" / f"{name}.pt")["model"]
        for stage in (1, 5)
        for name in ("start", "model")
    }
    plain = load(teacher)["model"]
    fc1, table, query = "encoder.layers.0.fc1", "decoder.embed_tokens", "decoder.layers.0.self_attn.q_proj"
    assert torch.equal(states[1, "start"][f"{query}.weight"], plain[f"{query}.weight"])
    assert not torch.equal(states[1, "model"][f"{query}.weight"], plain[f"{query}.weight"])
    assert f"{fc1}.weight" not in states[1, "start"]
    assert f"{table}.weight" not in states[1, "start"]
    kept = states[1, "model"].keys() & states[5, "start"].keys()
    assert f"{fc1}.weight_centroids" in kept
    assert all(torch.equal(states[1, "model"][key], states[5, "start"][key]) for key in kept)
    assert f"{query}.weight" not in states[5, "start"]
    last = states[5, "model"]
    for name, first in ((fc1, 1), (table, 1), (query, 5)):
        key = f"{name}.weight_transform.assignments"
        assert torch.equal(states[first, "start"][key], last[key])
        assert not torch.equal(states[first, "start"][f"{name}.weight_centroids"], last[f"{name}.weight_centroids"])
    result = load(staged / "q.pt")
    assert all(torch.equal(result["model"][key], value) for key, value in last.items())
    assert result["last_optimizer_state"] is None


def test_the_result_generates_and_packs(staged, data_bin, tmp_path):
    run_command("fairseq-compress", "quantize", "--checkpoint", staged / "q.pt", "--output", tmp_path / "q.safetensors")
    found = hypotheses(staged / "q.pt", data_bin)
    assert len(found) == 9
    assert found == hypotheses(tmp_path / "q.safetensors", data_bin)


def test_killed_between_and_inside_stages(staged, teacher, data_bin, tmp_path):
    """Killed at several moments and started again: the same numbers, and no stage done twice."""
    (tmp_path / "plan.yaml").write_text(STAGES)
    command = [
        BIN / "fairseq-compress", "quantize", "--checkpoint", teacher, "--plan", tmp_path / "plan.yaml",
        "--output", tmp_path / "q.pt", "--stages-dir", tmp_path / "stages", "--", data_bin, *TRAIN,
    ]  # fmt: skip
    environment = os.environ | VARIABLES
    moments = ["stage-1/plan.yaml", "stage-1/checkpoint_1_2.pt", "stage-5/start.pt"]
    for moment in moments:
        process = subprocess.Popen(
            [str(word) for word in command], env=environment, start_new_session=True, stdout=subprocess.DEVNULL
        )
        while not (tmp_path / "stages" / moment).exists():
            assert process.poll() is None, moment
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "q.pt").exists()
    first = (tmp_path / "stages" / "stage-1" / "model.pt").stat().st_mtime_ns
    run_command(*map(str, command))
    assert (tmp_path / "stages" / "stage-1" / "model.pt").stat().st_mtime_ns == first
    whole, again = load(staged / "q.pt")["model"], load(tmp_path / "q.pt")["model"]
    assert whole.keys() == again.keys()
    for key, value in whole.items():
        assert torch.equal(value, again[key]), key


def test_stages_of_other_settings_and_what_stages_set_themselves(staged, teacher, data_bin):
    options = ["--stages-dir", staged / "q.pt.stages", "--", data_bin, *TRAIN]
    for plan, arguments, message in (
        (STAGES.replace("centroids: 16", "centroids: 8"), options, "stage-1 was begun with another plan; name another"),
        (STAGES, [*options, "--lr", "1"], "stage-1 was begun with another training; name another folder"),
        (STAGES, [*options, "--save-dir", "x"], "fairseq-train: --save-dir is not for the stages of a quantization"),
        (
            STAGES.replace("_proj", "_projj"),
            ["--stages-dir", staged / "none", *options[2:]],
            "weights[1].modules: the pattern '*_projj' matches no module",  # before anything is trained
        ),
        (STAGES, ["--stages-dir", "x"], "--stages-dir: requires the arguments of a training, after --"),
        (STAGES, [*options[:3], data_bin / "none", *TRAIN], "begun with another training"),
    ):
        result = quantize(teacher, staged, plan, *arguments, name="other.pt", check=False)
        assert result.returncode == 1, result.stdout
        assert message in result.stdout.splitlines()[-1]
        assert not (staged / "other.pt").exists()
    assert not (staged / "none" / "stage-1").exists()


def test_a_training_that_fails_is_named_and_the_corrected_one_goes_on(teacher, data_bin, tmp_path):
    """One line, no traceback and no usage; what was wrong can be mended in the same folder."""
    plan = 'weights: [{modules: ["*.fc?"], method: product, block: 4, centroids: 16}]'
    train = ["--", data_bin, *WITHOUT_SHAPE]
    for more, message in (
        (["--no-such-option"], "the training ended with status 2: unrecognized arguments: --no-such-option (see "),
        (["--criterion", "word_level_kd", "--teacher-path", "no.pt"], "ended with status 1: checkpoint no.pt: no such"),
    ):
        result = quantize(teacher, tmp_path, plan, *train, *more, check=False)
        assert result.returncode == 1
        last = result.stdout.splitlines()[-1]
        assert last.startswith("fairseq-compress quantize: error: stage 1 of 1: ")
        assert message in last
        assert last.endswith("; nothing was trained yet: correct the command and run it again")
        assert "Traceback" not in result.stdout
        assert "usage:" not in result.stdout
        assert not (tmp_path / "q.pt").exists()
    quantize(teacher, tmp_path, plan, *train)
    assert (tmp_path / "q.pt").exists()
    for arguments, message in (
        ([data_bin, "--optimizer", "adam"], "requires one of --max-update, --max-epoch"),
        ([*train[1:], "--arch", "transformr_small"], "unknown architecture 'transformr_small'; did you mean transf"),
        ([tmp_path, *WITHOUT_SHAPE], "must be a folder of fairseq-preprocess, has no dict.en.txt"),
    ):
        result = quantize(teacher, tmp_path, plan, "--stages-dir", tmp_path / "x", "--", *arguments, check=False)
        assert result.returncode == 1
        assert message in result.stdout.splitlines()[-1]


def test_a_stock_checkpoint_in_stages_without_its_shape(data_bin, tmp_path):
    """Trained by fairseq without the plugin; its architecture, languages and dictionaries are those of the file."""
    shape = ["--arch", "transformer", "--share-all-embeddings", "--encoder-learned-pos", *TINY]
    run_command(
        "fairseq-train", data_bin, "--task", "translation", "-s", "en", "-t", "cs", "--cpu", *shape, "--optimizer",
        "adam", "--max-tokens", 240, "--max-update", 2, "--save-dir", tmp_path, "--disable-validation",
        "--no-epoch-checkpoints", "--num-workers", 0,
    )  # fmt: skip
    stock = tmp_path / "checkpoint_last.pt"
    result = quantize(stock, tmp_path, STAGES, "--", data_bin, *WITHOUT_SHAPE)
    assert "stage 1 of 2: quantizing weights *.fc? *.embed_tokens\n" in result.stdout
    assert "stage 2 of 2: quantizing weights *_proj\n" in result.stdout
    assert re.search(r"^weights: [\d,]+ bytes -> [\d,]+ bytes, \d\.\d times smaller", result.stdout, re.MULTILINE)
    assert len(hypotheses(tmp_path / "q.pt", data_bin)) == 9
    again = quantize(stock, tmp_path, STAGES, "--", data_bin, *WITHOUT_SHAPE).stdout
    assert "stage 2 of 2: done already" in again
    old = load(stock)  # as before 2021: a namespace of arguments
    groups = [vars(group) if isinstance(group, argparse.Namespace) else group for group in old["cfg"].values()]
    old["args"] = argparse.Namespace(**{key: value for group in groups if group for key, value in group.items()})
    old["args"].arch, old["args"].task = "transformer", "translation"
    old["args"].optimizer, old["args"].criterion, old["args"].lr_scheduler = "adam", "cross_entropy", "fixed"
    del old["cfg"]
    torch.save(old, tmp_path / "old.pt")
    fairseq_compress.register()
    found, new = ({*checkpoint_options(load_upgraded(path)[1], [])} for path in (tmp_path / "old.pt", stock))
    assert new <= found
    quantize(tmp_path / "old.pt", tmp_path, STAGES, name="old-q.pt")
    assert len(hypotheses(tmp_path / "old-q.pt", data_bin)) == 9


def test_int8_centroids_and_activations_follow(staged, teacher, data_bin, tmp_path):
    """iPQ + int8, with the plain model as a teacher: assignments stay, centroids are multiples of their steps."""
    plan = STAGES.replace("stage: 1", "centroid_bits: 8").replace("stage: 5", "centroid_bits: 8")
    plan += 'activations: [{modules: ["*"], decay: 0.9}]'
    teaching = ["--criterion", "word_level_kd", "--teacher-path", teacher]
    options = ["--calibration-data", data_bin, "--", data_bin, *TRAIN, *teaching]
    quantize(staged / "q.pt", tmp_path, plan, *options)
    before, after = load(staged / "q.pt")["model"], load(tmp_path / "q.pt")["model"]
    for key, value in before.items():
        if key.endswith("assignments"):
            assert torch.equal(value, after[key])
    table = run_command("fairseq-compress", "describe", "--checkpoint", tmp_path / "q.pt").stdout
    assert table.count(", in int8") == 2 * 6 + 1 * 10 + 1 == table.count("codes: ")
    assert all(value > 0 for key, value in after.items() if key.endswith("largest"))


def test_compression_is_not_lost_without_a_word(staged, teacher, train_arguments, tmp_path, capsys):
    quantize(teacher, tmp_path, 'activations: [{modules: ["*"]}]')
    for checkpoint, message in (
        (staged / "q.pt", "encoder.embed_tokens is made of centroids, for which this model's plan has no place"),
        (tmp_path / "q.pt", "k_proj has a range for its input, for which this model's plan has no place"),
    ):
        result = run_command(
            "fairseq-train", *train_arguments, *TINY, "--arch", "transformer_small", "--finetune-from-model",
            checkpoint, "--save-dir", tmp_path / "save", check=False,
        )  # fmt: skip
        assert result.returncode == 1
        assert message in result.stdout.splitlines()[-1]
    (tmp_path / "plan.yaml").write_text('weights: [{modules: ["*"]}]')
    arguments = ["--checkpoint", staged / "q.pt", "--plan", tmp_path / "plan.yaml", "--output", tmp_path / "no.pt"]
    assert main(["quantize", *map(str, arguments)]) == 1
    assert "is made of centroids, for which this model's plan has no place" in capsys.readouterr().err


def test_codebooks_with_different_assignments_have_no_average(staged, tmp_path):
    stages = staged / "q.pt.stages"
    inputs = [stages / "stage-5" / name for name in ("start.pt", "model.pt")]
    run_command("fairseq-compress", "average", "--checkpoint", *inputs, "--output", tmp_path / "mean.pt")
    one, other, mean = (load(path)["model"] for path in (*inputs, tmp_path / "mean.pt"))
    key = "encoder.layers.0.fc1.weight_centroids"
    torch.testing.assert_close(mean[key], (one[key] + other[key]) / 2)
    state = load(inputs[0])
    state["model"]["encoder.layers.0.fc1.weight_transform.assignments"][0, 0] += 1
    torch.save(state, tmp_path / "other.pt")
    result = run_command(
        "fairseq-compress", "average", "--checkpoint", inputs[1], tmp_path / "other.pt", "--output", tmp_path / "no.pt",
        check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "encoder.layers.0.fc1.weight_transform.assignments" in result.stdout.splitlines()[-1]
    assert not (tmp_path / "no.pt").exists()


def test_two_processes_train_a_stage_as_one_does(teacher, data_bin, tmp_path):
    """One SGD step on two batches: two gloo processes with a batch each, or one that accumulates both."""
    plan = 'weights: [{modules: ["*"], method: product, block: 4, centroids: 8}]'
    base = [
        data_bin, "-s", "en", "-t", "cs", "--cpu", "--arch", "transformer_small", *TINY, "--optimizer", "sgd",
        "--lr", "1.0", "--clip-norm", 0, "--dropout", 0, "--max-tokens", 120, "--max-update", 1, "--seed", 3,
        "--num-workers", 0, "--disable-validation", "--ddp-backend", "legacy_ddp",
    ]  # fmt: skip
    quantize(teacher, tmp_path, plan, "--", *base, "--update-freq", 2, name="one.pt")
    launcher = shlex.join(map(str, [BIN / TORCHRUN[0], *TORCHRUN[1:], BIN / "fairseq-train"]))
    training = [*base, "--update-freq", 1, *UNDER_TORCHRUN]
    quantize(teacher, tmp_path, plan, "--train-command", launcher, "--", *training, name="two.pt")
    start = load(tmp_path / "one.pt.stages" / "stage-1" / "start.pt")["model"]
    one, two = (load(tmp_path / f"{name}.pt")["model"] for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6, msg=key)
    key = "decoder.layers.0.self_attn.v_proj.weight_centroids"
    assert (one[key] - start[key]).abs().max() > 1e-4


def test_a_calibrated_model_is_packed_in_one_call(teacher, data_bin, tmp_path, capsys):
    (tmp_path / "plan.yaml").write_text('weights: [{modules: ["*"], bits: 8}]\nactivations: [{modules: ["*"]}]')
    plan = ["--plan", str(tmp_path / "plan.yaml"), "--calibration-data", str(data_bin), "--calibration-sentences", "20"]
    assert main(["quantize", str(teacher), str(tmp_path / "q.pt"), *plan]) == 0
    assert main(["quantize", str(tmp_path / "q.pt"), str(tmp_path / "q.safetensors")]) == 0
    assert main(["quantize", str(teacher), str(tmp_path / "at-once.safetensors"), *plan]) == 0
    assert (tmp_path / "at-once.safetensors").read_bytes() == (tmp_path / "q.safetensors").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"plan.yaml", "q.pt", "q.safetensors", "at-once.safetensors"}
    capsys.readouterr()
    assert main(["quantize", str(teacher), str(tmp_path / "no.pt")]) == 1
    assert "--plan: must be given, unless the output is packed" in capsys.readouterr().err
