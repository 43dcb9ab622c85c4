"""scripts/experiments/quantization.sh: what it runs, from which model, and with LONG=1; the plans of configs/plans."""

from pathlib import Path

import pytest

from fairseq_compress.weights.reading import read_plan
from tests.helpers.experiments import ROOT, dry_run, value

PLANS = sorted((ROOT / "configs" / "plans").glob("*.yaml"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantization")


@pytest.fixture(scope="module")
def commands(work: Path) -> list[list[str]]:
    return dry_run("quantization.sh", work)


def verb(commands: list[list[str]], name: str) -> list[list[str]]:
    return [command for command in commands if command[0].endswith("fairseq-compress") and command[1] == name]


def packings(commands: list[list[str]]) -> list[list[str]]:
    return [command for command in verb(commands, "quantize") if command[2:4] == ["--format", "packed"]]


def test_every_system_starts_from_the_same_model_and_is_tested_against_float32(
    work: Path, commands: list[list[str]]
) -> None:
    teacher, *trained = (command for command in commands if command[0].endswith("fairseq-train"))
    assert {value(command, "--finetune-from-model") for command in trained} == {str(work / "work/teacher/averaged.pt")}
    assert {value(command, "--max-update") for command in trained} == {"200"}
    assert {value(command, "--arch") for command in trained} == {value(teacher, "--arch")}
    plans = [value(command, "--compression-plan") for command in trained if "--compression-plan" in command]
    assert [index for index, command in enumerate(trained) if "--compression-plan" not in command] == [0, 6]
    of_a_seed = ["int8", "int8-noise", "int4", "int4-noise"]
    assert [Path(plan).stem for plan in plans] == [*of_a_seed, "product-noise", *of_a_seed]
    assert [value(command, "--seed") for command in trained] == ["1"] * 6 + ["2"] * 5
    assert all((ROOT / plan).is_file() for plan in plans)
    scored = verb(commands, "score")
    assert len(scored) == len(packings(commands)) == 30
    names = [value(command, "--name") for command in scored]
    for command, name in zip(scored, names, strict=True):
        seed = ".2" if name.endswith(".2") else ""
        if name == f"float32{seed}":
            assert "--baseline" not in command
        else:
            assert Path(value(command, "--baseline")).name == f"float32{seed}.cs"
        facts = command[command.index("--set") + 1 :]
        assert facts[:2] == [f"system={name.removesuffix('.2')}", f"seed={seed.removeprefix('.') or 1}"]
    (report,) = verb(commands, "report")
    assert Path(value(report, "--output")).name == "report"
    assert [Path(path).stem for path in report[3 : 3 + len(names)]] == names


def test_what_is_measured_is_the_packed_file(commands: list[list[str]]) -> None:
    packed = [value(command, "--output") for command in packings(commands)]
    translated = [value(command, "--path") for command in verb(commands, "time")]
    assert translated == packed == [value(command, "--checkpoint") for command in verb(commands, "score")]


def test_stages(work: Path, commands: list[list[str]]) -> None:
    staged = [command for command in verb(commands, "quantize") if "--stages-dir" in command]
    names = [Path(value(command, "--stages-dir")).parent.name for command in staged]
    assert names == ["ipq", "ipq-noise", "ipq-noise-int8", "ipq-noise-teacher", "ipq-20x"]
    for command, name in zip(staged, names, strict=True):
        training = command[command.index("--") + 1 :]
        updates = "300" if name == "ipq-20x" else "100"
        assert value(training, "--max-update") == value(training, "--total-num-update") == updates
        assert not {"--save-dir", "--finetune-from-model", "--compression-plan"} & set(training)
    assert value(staged[3], "--criterion") == "word_level_kd"
    assert Path(value(staged[2], "--checkpoint")).parent.name == "ipq-noise"
    long = [
        command for command in verb(dry_run("quantization.sh", work, LONG="1"), "quantize") if "--stages-dir" in command
    ]
    assert [value(command, "--max-update") for command in long] == ["5000"] * 4 + ["15000"]


@pytest.mark.parametrize("path", PLANS, ids=[path.stem for path in PLANS])
def test_a_plan_can_be_read(path: Path) -> None:
    plan = read_plan(str(path))
    assert plan.weights
    assert path.read_text().startswith("# ")
