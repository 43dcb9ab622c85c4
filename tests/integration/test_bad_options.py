"""Bad options and bad teachers: one clear line, status 1, before any training, and nothing already made is lost."""

import shutil

import pytest
import torch

from tests.conftest import PLUGIN, ROOT, TINY, binarize, run_command, write_pair


def refused(arguments, tmp_path) -> str:
    """Run fairseq-train, which must refuse; what lay in its folder must lie there still. Returns the error line."""
    folder = tmp_path / "save"
    folder.mkdir()
    (folder / "precious").write_text("kept")
    result = run_command(
        "fairseq-train", *arguments, *TINY, "--arch", "transformer_small", "--save-dir", folder, check=False
    )
    assert result.returncode == 1, result.stdout
    assert "begin training" not in result.stdout
    assert "Traceback" not in result.stdout
    assert [path.name for path in folder.iterdir()] == ["precious"]
    return result.stdout.splitlines()[-1]


def test_every_bad_option_is_in_one_line(train_arguments, tmp_path):
    options = ["--kd-temperature", 0, "--kd-alpha", 2, "--label-smoothing", 1]
    line = refused([*train_arguments, "--criterion", "word_level_kd", *options], tmp_path)
    assert line == (
        "fairseq-compress: error: --label-smoothing: must be in [0, 1), got 1.0; --kd-temperature: must be in (0, "
        "inf), got 0.0; --kd-alpha: must be in [0, 1], got 2.0; --teacher-path: must name the teacher's checkpoint, or "
        "--teacher-cache its cache, got neither"
    )


@pytest.mark.parametrize("criterion", ["fused_label_smoothed_cross_entropy", "sequence_level_kd", "word_level_kd"])
def test_stock_options_that_a_criterion_cannot_take(criterion, train_arguments, teacher, tmp_path):
    options = ["--criterion", criterion, "--adaptive-softmax-cutoff", "8,16"]
    if criterion == "word_level_kd":
        options += ["--teacher-path", teacher, "--kd-alpha", 2]
    line = refused([*train_arguments, *options], tmp_path)
    assert line.startswith("fairseq-compress: error: ")
    assert "--adaptive-softmax-cutoff: must not be given here, the loss needs logits of the whole dictionary" in line
    assert ("--kd-alpha: must be in [0, 1], got 2.0" in line) == (criterion == "word_level_kd")


def test_buckets_of_fairseq(train_arguments, tmp_path):
    """fairseq makes them with functions that numpy 2 does not have."""
    line = refused([*train_arguments, "--num-batch-buckets", 3], tmp_path)
    assert line.startswith(
        "fairseq-compress: error: --num-batch-buckets: must be 0, fairseq cannot make them with numpy "
    )


def test_a_teacher_with_adaptive_softmax(train_arguments, data_bin, tmp_path):
    run_command(
        "fairseq-train", *train_arguments, *TINY, "--arch", "transformer", "--criterion", "adaptive_loss",
        "--adaptive-softmax-cutoff", "8,16", "--ddp-backend", "legacy_ddp", "--save-dir", tmp_path / "t",
    )  # fmt: skip
    (checkpoint,) = (tmp_path / "t").glob("*.pt")
    options = ["--criterion", "word_level_kd", "--teacher-path", checkpoint]
    assert refused([*train_arguments, *options], tmp_path) == (
        f"fairseq-compress: error: --teacher-path {checkpoint}: the teacher must give a logit for each entry of the "
        "dictionary, got adaptive softmax"
    )


def test_hydra_gives_one_line_too(data_bin, teacher, tmp_path):
    result = run_command(
        "fairseq-hydra-train", "--config-dir", ROOT / "configs" / "hydra", "--config-name", "word_level_kd",
        f"hydra.run.dir={tmp_path}/hydra", f"common.user_dir={PLUGIN}", "common.cpu=true", f"task.data={data_bin}",
        f"criterion.teacher_path={teacher}", f"checkpoint.save_dir={tmp_path}/out", "criterion.kd_temperature=0",
        check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "Traceback" not in result.stdout
    assert result.stdout.splitlines()[-1] == ("fairseq-compress: error: --kd-temperature: must be in (0, inf), got 0.0")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("missing", "no such file"),
        ("truncated", "truncated, or not a checkpoint of fairseq"),
        ("other languages", "the teacher must translate en-cs as the student does, it translates cs-en"),
        ("other dictionary", "the teacher's en dictionary must equal the student's; the first difference is entry"),
        ("shorter", "--max-source-positions: must be at most 50, got 1024: the teacher of --teacher-path"),
        ("other task", "the teacher's task must be translation or compressed_translation, got translation_lev"),
        ("all at once", "must equal the student's; the first difference is entry"),
        ("all at once", "; --max-target-positions: must be at most 60, got 1024: the teacher of --teacher-path"),
        ("all at once", "the teacher's task must be translation or compressed_translation, got translation_lev; "),
        ("no dictionary", "--teacher-data: must name the folder with the teacher's dict.en.txt"),
    ],
)
def test_bad_teachers(make, message, train_arguments, teacher, tmp_path):
    arguments, bad = list(train_arguments), tmp_path / "teacher" / "bad.pt"
    bad.parent.mkdir()
    shutil.copy(teacher, bad)
    options: list[object] = []
    if make == "missing":
        bad.unlink()
    elif make == "truncated":
        bad.write_bytes(bad.read_bytes()[:5000])
    elif make == "other languages":
        reverse = [*train_arguments]
        reverse[reverse.index("-s") + 1], reverse[reverse.index("-t") + 1] = "cs", "en"
        run_command("fairseq-train", *reverse, *TINY, "--arch", "transformer_small", "--save-dir", bad.parent)
        bad, arguments = bad.parent / "checkpoint_1_2.pt", list(train_arguments)
    elif make in ("other dictionary", "all at once"):
        write_pair(tmp_path / "other", 30, 7, first="other")
        options = ["--teacher-data", binarize(tmp_path / "other-bin", {"trainpref": str(tmp_path / "other")})]
    elif make == "no dictionary":
        options = ["--teacher-data", tmp_path]
    if make in ("shorter", "other task", "all at once"):
        state = torch.load(bad, weights_only=False)
        if make != "other task":
            vars(state["cfg"]["model"]).update(max_source_positions=50, max_target_positions=60)
        if make != "shorter":
            state["cfg"]["task"]["_name"] = "translation_lev"
        torch.save(state, bad)
    line = refused([*arguments, "--criterion", "word_level_kd", "--teacher-path", bad, *options], tmp_path)
    assert line.startswith("fairseq-compress: error: ")
    assert message in line
    assert str(bad) in line or "--teacher-data" in line
