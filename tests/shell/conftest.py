"""Fixtures of the shell tests."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.fake_pipeline import EVERY_KIND, Pipeline


@pytest.fixture
def make_pipeline(tmp_path: Path) -> Callable[[str], Pipeline]:
    """Pipelines by name, each in a folder of its own."""
    return lambda name: Pipeline(tmp_path / name)


@pytest.fixture
def pipeline(make_pipeline: Callable[[str], Pipeline]) -> Pipeline:
    """A pipeline that has not run yet."""
    return make_pipeline("a pipeline")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, str, list[list[str]]]:
    """A pipeline that ran to its end, what it printed, and the commands that it called. Not to be changed."""
    pipeline = Pipeline(tmp_path_factory.mktemp("first") / "run")
    output = pipeline.run().stdout
    return pipeline, output, pipeline.recorded()


@pytest.fixture
def finished(pipeline: Pipeline, first_run: tuple[Pipeline, str, list[list[str]]]) -> Pipeline:
    """A finished pipeline to change: its work directory is a copy in another place."""
    shutil.copytree(first_run[0].work, pipeline.work)
    return pipeline


@pytest.fixture(scope="session")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, list[list[str]]]:
    """A pipeline with students of every kind that ran up to their trainings, and its commands. Not to be changed."""
    pipeline = Pipeline(tmp_path_factory.mktemp("kinds") / "run")
    pipeline.append(EVERY_KIND)
    pipeline.run("--to", "07")
    return pipeline, pipeline.recorded()


@pytest.fixture
def distilled(pipeline: Pipeline, every_kind: tuple[Pipeline, list[list[str]]]) -> Pipeline:
    """Such a pipeline to change."""
    shutil.copytree(every_kind[0].work, pipeline.work)
    pipeline.append(EVERY_KIND)
    return pipeline
