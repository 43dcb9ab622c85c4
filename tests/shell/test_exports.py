"""The stage that exports: which commands run for a row of EXPORT, and what the report gets of it."""

import json
import shutil

import pytest
from test_pipeline_restart import kill_inside, steps

from tests.helpers.fake_pipeline import Pipeline, find, name_of, value

ROWS = """
EXPORT=(
    "small two --quantization int8"
    "large teacher --runtime ctranslate2"
)
"""


def test_an_export_is_a_system_of_the_report(finished: Pipeline) -> None:
    finished.append(ROWS)
    output = finished.run().stdout
    commands = finished.recorded()
    names = ["export", "time", "export", "time", "score", "score", "report"]
    assert [name_of(command) for command in commands] == names
    small, large = find(commands, "export")
    expected = {
        "--checkpoint": "WORK/students/two/averaged.pt", "--data": "WORK/bin", "--quantization": "int8",
        "--sentencepiece-model": "WORK/vocabulary/spm.model", "--output": "WORK/exported/small",
        "--source": "WORK/prepared/valid/text.en", "--reference": "WORK/prepared/valid/text.cs",
        "--beam": "5", "--lenpen": "1.0", "--max-len-a": "1.5", "--max-len-b": "20",
    }  # fmt: skip
    assert {option: value(small, option) for option in expected} == expected
    assert value(large, "--checkpoint") == "WORK/teacher/averaged.pt"
    assert value(large, "--runtime") == "ctranslate2"
    timing = find(commands, "time")[0]
    assert (value(timing, "--checkpoint"), value(timing, "--source")) == (
        "WORK/exported/small",
        "WORK/prepared/test/text.en",
    )
    score = find(commands, "score")[0]
    assert value(score, "--checkpoint") == "WORK/exported/small"
    assert value(score, "--hypothesis") == "WORK/translations/small.cs"
    seconds = score.index("--translation-seconds")
    assert score[seconds + 1 : seconds + 6] == ["0.5", "0.4", "0.6", "--timed-sentences", "5"]
    assert {"role=exported", "of=two", "hardware=a fake"} <= set(score)
    text = (finished.work / "translations/small.cs").read_text().splitlines()
    assert text == [f"převod en test {number}" for number in range(5)]
    page = (finished.work / "report/report.md").read_text().splitlines()
    assert page[1:] == ["teacher.json", "one.json", "two.json", "small.json", "large.json"]
    assert "skip export (" not in output
    assert steps(finished.run().stdout, "run") == []


def test_without_rows_there_is_nothing_to_do(first_run: tuple[Pipeline, str, object]) -> None:
    assert "skip export (EXPORT is empty)\n" in first_run[1]


def test_an_export_alone(finished: Pipeline) -> None:
    finished.append(ROWS)
    finished.run("small", script="stages/11_export.sh")
    assert [value(command, "--output") for command in find(finished.recorded(), "export")] == ["WORK/exported/small"]
    finished.run("small", script="stages/10_translate.sh")
    assert finished.recorded() == []


def test_a_student_trained_again_is_exported_again(finished: Pipeline) -> None:
    finished.append(ROWS)
    finished.run()
    finished.set(KD_ALPHA="0.7")
    again = steps(finished.run().stdout, "run")
    assert [step for step in again if "small" in step] == [
        f"{step}-small" for step in ("export", "translate", "collect", "score")
    ]
    assert not [step for step in again if "large" in step]


def test_a_student_with_a_vocabulary_of_its_own(pipeline: Pipeline) -> None:
    pipeline.set(STUDENTS="('own transformer_small gold@40 fused_label_smoothed_cross_entropy')", EXPORT="('mini own')")
    (export,) = find(pipeline.dry_run(), "export")
    assert value(export, "--data").endswith("/bin-40")
    assert value(export, "--sentencepiece-model").endswith("/vocabulary-40/spm.model")


def test_multiply_adds_are_of_checkpoints(pipeline: Pipeline) -> None:
    pipeline.append(ROWS)
    pipeline.set(COST_TOKENS="20", BASELINE="one")
    scores = {value(command, "--name"): command for command in find(pipeline.dry_run(), "score")}
    assert "--cost-tokens" in scores["two"]
    assert "--cost-tokens" not in scores["small"]
    assert value(scores["small"], "--baseline") == value(scores["two"], "--baseline")
    assert "--baseline" not in scores["large"]


def test_a_lost_line_stops_the_pipeline(finished: Pipeline) -> None:
    finished.append(ROWS)
    assert "lines" in finished.run(status=1, FAKE_LOSE="time").stderr


def test_kill_inside_an_export(finished: Pipeline) -> None:
    finished.append(ROWS)
    kill_inside(finished, "export")
    assert "run export-small (it was interrupted)" in finished.run().stdout
    model = finished.work / "exported/small/model"
    once = model.read_text()
    shutil.rmtree(model.parent)
    finished.run()
    assert model.read_text() == once
    assert json.loads((finished.work / "translations/small.json").read_text().splitlines()[0])


@pytest.mark.parametrize("row", ["small", "small two"])
def test_a_row_without_arguments(pipeline: Pipeline, row: str) -> None:
    pipeline.set(EXPORT=f"('{row}')")
    result = pipeline.run("--dry-run", status=int(row == "small"))
    if row == "small":
        assert "EXPORT small system must be one of: teacher one two, got ''" in result.stderr
