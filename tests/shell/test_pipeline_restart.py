"""What the pipeline runs again: after changes, after kill -9 anywhere, and with two runs at once."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.fake_pipeline import ROOT, Pipeline

FirstRun = tuple[Pipeline, str, list[list[str]]]
TO_SCORE = ("train", "average", "translate", "collect", "decode", "score")
FOLDER_OF_ACTION = {
    "encode": "encoded", "fairseq-preprocess": "bin", "fairseq-train": "students/two",
    "time": "translations", "kd-data collect": "translations", "score": "translations",
}  # fmt: skip


def steps(output: str, word: str) -> list[str]:
    """The steps that said "run NAME" or "skip NAME"."""
    return [line.split()[1] for line in output.splitlines() if line.startswith(f"{word} ")]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"waited two minutes for {what}")


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def start_hanging(pipeline: Pipeline, action: str) -> subprocess.Popen[bytes]:
    """Start the pipeline and wait until it is in the middle of an action, where it stays."""
    process = subprocess.Popen(
        pipeline.command(), env=pipeline.environment | {"FAKE_HANG": action}, stdout=subprocess.DEVNULL
    )
    wait_for(lambda: pipeline.pid_file.exists() or process.poll() is not None, action)
    assert process.poll() is None, "the pipeline ended by itself"
    return process


def kill_inside(pipeline: Pipeline, action: str) -> None:
    """Kill the first process of the pipeline in the middle of an action; its children must die with it."""
    process = start_hanging(pipeline, action)
    process.kill()
    process.wait()
    pid = int(pipeline.pid_file.read_text())
    pipeline.pid_file.unlink()
    wait_for(lambda: not is_running(pid), "the death of the command")


def test_second_run_skips_everything_even_after_a_move(first_run: FirstRun, finished: Pipeline) -> None:
    output = finished.run().stdout
    assert steps(output, "run") == []
    told = output.replace("skip cache-teacher (no", "").replace("skip export (EXPORT", "")
    assert steps(told, "skip") == steps(first_run[1], "run")
    assert finished.recorded() == []


def test_another_device_changes_nothing_that_is_done(finished: Pipeline) -> None:
    assert steps(finished.run(DEVICE="gpu").stdout, "run") == []


@pytest.mark.parametrize(
    ("setting", "again"),
    [
        ({"KD_ALPHA": "0.7"}, [f"{step}-two" for step in TO_SCORE] + ["report"]),
        ({"REPORT_NOTE": "'A note.'"}, ["report"]),
        ({"KNOWN_CRITERIONS": "(label_smoothed_cross_entropy word_level_kd mine)"}, []),
    ],
)
def test_a_setting_reruns_what_depends_on_it(finished: Pipeline, setting: dict[str, str], again: list[str]) -> None:
    finished.set(**setting)
    output = finished.run().stdout
    assert steps(output, "run") == again
    assert output.count("(inputs or settings changed)") == len(again)


def test_changed_raw_text_runs_again(finished: Pipeline) -> None:
    text = finished.raw / "train.en"
    text.write_text(text.read_text().replace("train 3", "train E"))  # as many bytes as before
    output = finished.run("--to", "03").stdout
    assert "run prepare-train (inputs or settings changed)" in output
    assert steps(output, "skip") == ["prepare-valid", "prepare-test"]


def test_output_changed_by_hand_is_made_again(finished: Pipeline) -> None:
    translation = finished.work / "translations/one.cs"
    original = translation.read_text()
    translation.write_text(original.replace("1", "2"))
    (finished.work / "report/report.md").unlink()
    output = finished.run("--from", "08").stdout
    assert steps(output, "run") == ["decode-one", "report"]
    assert output.count("(its output was changed or removed)") == 2
    assert translation.read_text() == original


@pytest.mark.parametrize("action", ["prepare", "fairseq-preprocess", "fairseq-train", "time", "score"])
def test_kill_inside_a_step(pipeline: Pipeline, first_run: FirstRun, action: str) -> None:
    if action != "prepare":
        shutil.copytree(first_run[0].work, pipeline.work)
        shutil.rmtree(pipeline.work / FOLDER_OF_ACTION[action])
    kill_inside(pipeline, action)
    output = pipeline.run().stdout
    assert "(it was interrupted)" in output
    assert pipeline.results() == first_run[0].results()


def test_training_goes_on_where_it_was(pipeline: Pipeline, first_run: FirstRun) -> None:
    kill_inside(pipeline, "fairseq-train")
    output = pipeline.run("--to", "04").stdout
    assert "epoch 3" in output
    assert "epoch 2" not in output
    again = pipeline.work / "teacher/checkpoints/checkpoint3.pt"
    assert again.read_bytes() == (first_run[0].work / "teacher/checkpoints/checkpoint3.pt").read_bytes()


def epochs(output: str) -> list[str]:
    """Those that the fake training went through."""
    return [line.split()[7] for line in output.splitlines() if "| train | epoch" in line]


def test_a_raised_limit_goes_on_from_the_last_checkpoint(make_pipeline: Callable[[str], Pipeline]) -> None:
    raised, direct = make_pipeline("raised"), make_pipeline("direct")
    raised.run("--to", "08")
    settings = {"TEACHER_MAX_EPOCH": "5", "STUDENT_MAX_UPDATE": "40"}
    raised.set(**settings)
    direct.set(**settings)
    output = raised.run("--to", "08").stdout
    reason = "(goes on: only --max-update or --max-epoch was raised)"
    assert f"run train-teacher {reason}\n" in output
    assert f"run train-one {reason}\n" in output
    assert epochs(raised.run_log("train-teacher")) == ["1", "2", "3", "4", "5"]
    assert epochs(raised.run_log("train-one")) == ["1", "2", "3", "4"]
    direct.run("--to", "08")
    assert raised.results() == direct.results()
    assert steps(raised.run("--to", "08").stdout, "run") == []


def test_an_interrupted_training_goes_on_when_its_limit_is_raised(pipeline: Pipeline) -> None:
    kill_inside(pipeline, "fairseq-train")
    pipeline.set(TEACHER_MAX_EPOCH="4")
    assert "(goes on: only --max-update or --max-epoch was raised)" in pipeline.run("--to", "04").stdout
    assert epochs(pipeline.run_log("train-teacher")) == ["1", "2", "3", "4"]


def test_a_kill_of_a_training_that_goes_on_loses_nothing(finished: Pipeline, first_run: FirstRun) -> None:
    """What the lower limit made stays until the new output is whole."""
    finished.set(TEACHER_MAX_EPOCH="5")
    (finished.work / "teacher/checkpoints.tmp.copy").mkdir()  # of a kill while it was copied
    broken = Path(finished.environment["FC_BIN"]) / "fairseq-train"
    working = broken.read_text()
    broken.write_text("#!/bin/sh\nexit 3\n")
    finished.run("--from", "04", status=1)
    broken.write_text(working)
    assert (finished.work / "teacher/checkpoints/checkpoint3.pt").read_bytes() == (
        first_run[0].work / "teacher/checkpoints/checkpoint3.pt"
    ).read_bytes()
    assert "run train-teacher (it was interrupted)" in finished.run("--from", "04", "--to", "04").stdout
    assert epochs(finished.run_log("train-teacher"))[-2:] == ["4", "5"]


@pytest.mark.parametrize(
    "settings",
    [
        {"TEACHER_MAX_EPOCH": "2"},  # lower
        {"TEACHER_MAX_EPOCH": "5", "TEACHER_LR": "1e-3"},
        {"TEACHER_MAX_EPOCH": "0", "TEACHER_MAX_UPDATE": "50"},  # of two limits one is lower
    ],
)
def test_what_does_not_go_on(finished: Pipeline, settings: dict[str, str]) -> None:
    finished.set(**settings)
    output = finished.run("--from", "04", "--to", "04").stdout
    assert "run train-teacher (inputs or settings changed)" in output
    assert "epoch 1 " in output


@pytest.mark.parametrize(
    ("scheduler", "goes_on"),
    [
        ("polynomial_decay --total-num-update $TEACHER_MAX_EPOCH", False),  # another schedule
        ("polynomial_decay --total-num-update 50", True),
        ("polynomial_decay", False),  # falls until --max-update
        ("cosine", False),
        ("fixed", True),
    ],
)
def test_a_schedule_that_depends_on_the_end_is_not_mixed(pipeline: Pipeline, scheduler: str, goes_on: bool) -> None:
    extra = f"(--lr-scheduler {scheduler})"
    pipeline.set(TEACHER_EXTRA=extra)
    pipeline.run("--to", "04")
    pipeline.set(TEACHER_MAX_EPOCH="4", TEACHER_EXTRA=extra)
    assert ("(goes on: " in pipeline.run("--to", "04").stdout) == goes_on


def test_changed_settings_start_training_afresh(pipeline: Pipeline) -> None:
    kill_inside(pipeline, "fairseq-train")
    pipeline.set(TEACHER_LR="1e-3")
    output = pipeline.run("--to", "04").stdout
    assert "epoch 1" in output


def test_kill_at_any_time(pipeline: Pipeline, first_run: FirstRun) -> None:
    for attempt in range(8):
        process = subprocess.Popen(
            pipeline.command(), env=pipeline.environment, stdout=subprocess.DEVNULL, start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.3 + 0.25 * attempt)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() in (0, -signal.SIGKILL)
    pipeline.run()
    assert pipeline.results() == first_run[0].results()


def test_kill_between_the_last_two_renames(tmp_path: Path) -> None:
    script = f"""
        source {ROOT}/scripts/lib/process.sh
        source {ROOT}/scripts/lib/fingerprints.sh
        source {ROOT}/scripts/lib/steps.sh
        cd {tmp_path}
        DRY_RUN=0 ADOPT=0 WORK_DIR=work RAW_DIR=raw FC_BIN=bin
        make() {{ run_step make work/a/b --folder -- bash -c 'echo x >"$0/c"' @OUT@; }}
        make; mv work/a/b work/a/b.tmp
        cp work/a/b.done work/a/b.tmp.fingerprint
        make; cat work/a/b/c
    """
    output = subprocess.run(["bash", "-c", script], text=True, capture_output=True, check=True).stdout
    assert output == "run make\nskip make\nx\n"


def test_a_folder_that_the_pipeline_did_not_make_is_kept(finished: Pipeline) -> None:
    folder = finished.work / "bin"
    (finished.work / "bin.done").unlink()
    error = finished.run("--from", "03", "--to", "03", status=1).stderr
    message = f"step binarize: {folder} exists and was not made by this pipeline; move it away or set WORK_DIR"
    assert error == f"03_binarize.sh: error: {message} (ADOPT=1: take it)\n"
    assert any(folder.iterdir())


def test_workers_die_with_their_launcher(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    work = f"echo $$ >{pid_file}.new; mv {pid_file}.new {pid_file}; sleep 600"
    launcher = subprocess.Popen(
        ["bash", "-c", 'bash "$0" bash -c "$1" & wait', str(ROOT / "scripts/lib/train_process.sh"), work],
        env=os.environ | {"RANK": "0", "LOCAL_RANK": "0"},
    )
    wait_for(pid_file.exists, "the worker")
    launcher.kill()
    launcher.wait()
    wait_for(lambda: not is_running(int(pid_file.read_text())), "the death of the worker")


def test_two_runs_do_not_mix(pipeline: Pipeline) -> None:
    process = start_hanging(pipeline, "encode")
    second = pipeline.run(status=1, FC_LOCK_WAIT="0")
    process.kill()
    process.wait()
    message = f"another run works in {pipeline.work}; wait for its end, or set WORK_DIR"
    assert second.stderr == f"run_all.sh: error: {message}\n"


@pytest.mark.parametrize("action", ["encode", "fairseq-preprocess", "kd-data collect"])
def test_a_lost_sentence_stops_the_pipeline(finished: Pipeline, action: str) -> None:
    shutil.rmtree(finished.work / FOLDER_OF_ACTION[action])
    error = finished.run(status=1, FAKE_LOSE=action).stderr
    assert "lines" in error
    assert error.count("\n") == 1


def test_a_failing_command_is_named_and_loses_nothing(finished: Pipeline) -> None:
    before = finished.results()
    finished.set(TEACHER_LR="1e-3")
    broken = Path(finished.environment["FC_BIN"]) / "fairseq-train"
    broken.write_text("#!/bin/sh\necho 'the reason'\nexit 3\n")
    error = finished.run("--from", "04", status=1).stderr
    assert "the reason" in error
    assert "step train-teacher failed with exit status 3; see " in error
    assert finished.results()["teacher/averaged.pt"] == before["teacher/averaged.pt"]
    finished.set(TEACHER_LR="2e-3")
    assert steps(finished.run().stdout, "run") == []
