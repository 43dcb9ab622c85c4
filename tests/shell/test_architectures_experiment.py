"""scripts/experiments/architectures.sh: what it would run, by its dry run; and that its models have equal sizes."""

from pathlib import Path

import pytest
from fairseq import models, options

import fairseq_compress
from tests.helpers.experiments import dry_run, value
from tests.unit.test_presets import make_task

KINDS = {
    "dense", "factorized-16", "factorized-32", "factorized-64", "tensor-train", "low-rank", "shared", "shared-deep",
    "bottleneck", "sparse-50", "sparse-80", "sparse-90", "small-world-80", "ssru", "average-attention",
}  # fmt: skip


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    return dry_run("architectures.sh", tmp_path_factory.mktemp("architectures"))


@pytest.fixture(scope="module")
def students(commands: list[list[str]]) -> dict[str, list[str]]:
    training = [command for command in commands if command[0].endswith("fairseq-train")]
    return {Path(value(command, "--save-dir")).parent.name: command for command in training[1:]}


def test_every_architecture_learns_from_one_cache(students: dict[str, list[str]]) -> None:
    assert set(students) == {f"{kind}.1" for kind in KINDS}
    (cache,) = {value(command, "--teacher-cache") for command in students.values()}
    assert cache.endswith("/cache/gold-8")
    for command in students.values():
        assert (value(command, "--criterion"), value(command, "--max-update")) == ("word_level_kd", "600")


def test_multiply_adds_are_scored(commands: list[list[str]]) -> None:
    scoring = [command for command in commands if command[1:2] == ["score"]]
    assert len(scoring) == len(KINDS) + 1
    assert {value(command, "--cost-tokens") for command in scoring} == {"20"}


def test_all_are_of_about_equal_size(students: dict[str, list[str]]) -> None:
    fairseq_compress.register()
    sizes = {}
    for name, command in students.items():
        args = options.parse_args_and_arch(options.get_training_parser(), command[1:])
        model = models.build_model(args, make_task(6000, 6000))
        sizes[name] = sum(parameter.numel() for parameter in model.parameters())
    assert max(sizes.values()) < 1.1 * 1_620_000, sizes
    assert min(sizes.values()) > 0.88 * 1_620_000, sizes
