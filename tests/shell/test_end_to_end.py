"""scripts/experiments/end_to_end.sh: what it runs behind the pipeline, in order, and with LONG=1."""

from pathlib import Path

from tests.helpers.experiments import dry_run, value


def test_what_comes_after_the_pipeline(tmp_path: Path) -> None:
    commands = dry_run("end_to_end.sh", tmp_path)
    names = [command[1] if command[0].endswith(("fairseq-compress", "python")) else command[0] for command in commands]
    last = ["report", "materialize", "materialize", "benchmarks/end_to_end.py"]
    assert names[-len(last) :] == last
    teacher, student = (command for command in commands if command[0].endswith("fairseq-train"))
    assert value(teacher, "--arch") == "transformer"  # 6+6 layers, width 512
    assert value(teacher, "--total-num-update") == value(teacher, "--max-update") == "1000"
    assert value(student, "--criterion") == "word_level_kd"
    (export,) = (command for command in commands if command[1:2] == ["export"])
    table = commands[-1]
    assert value(export, "--runtime") == "auto"
    assert "valid" in value(export, "--source")  # the test part chooses nothing
    assert "test" in value(table, "--text")
    assert value(table, "--exported") == value(export, "--output")


def test_the_long_version(tmp_path: Path) -> None:
    teacher, student = (
        command for command in dry_run("end_to_end.sh", tmp_path, LONG="1") if command[0].endswith("fairseq-train")
    )
    assert value(teacher, "--total-num-update") == value(teacher, "--max-update") == "15000"
    assert value(student, "--max-update") == "30000"
