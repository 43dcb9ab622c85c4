"""scripts/experiments/objectives.sh: what it would run, found by its dry run."""

from pathlib import Path

import pytest

from tests.helpers.experiments import dry_run, value

KINDS = {
    "word-kd", "word-kd-start", "triple", "triple-no-kd", "triple-no-gold", "triple-no-cosine", "triple-random",
    "features", "attention", "transfer-auxiliary", "transfer-joint", "transfer-progressive", "align-to-distill",
    "selective-batch", "selective-queue", "tie-kd", "on-policy-forward", "on-policy-reverse", "on-policy-jsd",
    "dropout-teacher", "ensemble-teacher",
}  # fmt: skip


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The training of each student, of two seeds."""
    commands = dry_run("objectives.sh", tmp_path_factory.mktemp("objectives"), SEEDS="1 2")
    training = [command for command in commands if command[0].endswith("fairseq-train")]
    return {Path(value(command, "--save-dir")).parent.name: command for command in training[1:]}


def test_every_objective_and_seed(students: dict[str, list[str]]) -> None:
    assert set(students) == {f"{kind}.{seed}" for kind in KINDS for seed in (1, 2)}
    for name, command in students.items():
        assert value(command, "--seed") == name.split(".")[1]
        assert value(command, "--max-update") == "600"


def test_all_have_the_same_teacher(students: dict[str, list[str]]) -> None:
    paths = {name.split(".")[0]: value(command, "--teacher-path") for name, command in students.items()}
    (one,) = {path for name, path in paths.items() if name != "ensemble-teacher"}
    assert one.endswith("/teacher/averaged.pt")
    assert paths["ensemble-teacher"].split(":")[0] == one
    for command in students.values():
        if "--init-from-teacher" in command:
            assert value(command, "--init-from-teacher") == one


def test_the_ablations_leave_one_term_out(students: dict[str, list[str]]) -> None:
    weights = {
        name: [value(students[f"{name}.1"], f"--{term}-weight") for term in ("kd", "gold", "cosine")]
        for name in ("triple", "triple-no-kd", "triple-no-gold", "triple-no-cosine", "triple-random")
    }
    assert weights == {
        "triple": ["5", "2", "1"], "triple-no-kd": ["0", "2", "1"], "triple-no-gold": ["5", "0", "1"],
        "triple-no-cosine": ["5", "2", "0"], "triple-random": ["5", "2", "1"],
    }  # fmt: skip
    assert "--init-from-teacher" in students["triple.1"]
    assert "--init-from-teacher" not in students["triple-random.1"]
    assert "--kd-alpha" not in students["triple.1"]
    assert "--kd-alpha" in students["tie-kd.1"]


def test_the_long_version(tmp_path: Path) -> None:
    commands = dry_run("objectives.sh", tmp_path, LONG="1", SEEDS="1")
    (joint,) = [c for c in commands if "joint" in c and c[0].endswith("fairseq-train")]
    assert (value(joint, "--max-update"), value(joint, "--transfer-updates")) == ("20000", "8000")
