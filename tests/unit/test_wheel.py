"""The wheel and the source distribution, built without a network: what is in them."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser

import pytest

import fairseq_compress
from tests.conftest import ROOT

FILES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff",
         "CONTRIBUTING.md", "constraints.txt")  # fmt: skip
FOLDERS = ("fairseq_compress", "configs", "docs")


def build(folder, kind):
    """Run a hook of the build backend in a folder, and return the file that it made."""
    code = f"from setuptools import build_meta; print('made', build_meta.build_{kind}('dist'))"
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    made = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env=env,
    ).stdout.splitlines()[-1]
    return folder / "dist" / made.removeprefix("made ")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy: building leaves folders behind."""
    folder = tmp_path_factory.mktemp("sources")
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def sdist(sources):
    return build(sources, "sdist")


@pytest.fixture(scope="module", params=["repository", "sdist"])
def wheel(request, sources, sdist, tmp_path_factory):
    """Of the repository, and of what the source distribution holds."""
    if request.param == "repository":
        return zipfile.ZipFile(build(sources, "wheel"))
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return zipfile.ZipFile(build(next(folder.iterdir()), "wheel"))


def relative(folder, *suffixes):
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.suffix in suffixes}


def test_the_wheel_has_code_types_and_configurations(wheel):
    expected = {name for name in relative("fairseq_compress", ".py") if "__pycache__" not in name}
    expected |= {f"fairseq_compress/{name}" for name in relative("configs", ".env", ".json", ".yaml")}
    expected |= {"fairseq_compress/py.typed"}
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == expected
    plan = wheel.read("fairseq_compress/configs/plans/int4.yaml")
    assert plan == (ROOT / "configs/plans/int4.yaml").read_bytes()


def test_its_metadata(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Version"] == fairseq_compress.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.11,<3.14"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text().strip()
    base = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {line.partition(">=")[0] for line in base} >= {"numpy", "onnxruntime", "sentencepiece"}
    assert not any(line.startswith(("torch", "fairseq")) for line in base)
    assert name.replace("METADATA", "licenses/LICENSE") in wheel.namelist()


def test_the_source_distribution_has_its_papers(sdist):
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    assert {*FILES, "docs/api.md", "docs/examples/api.py", "configs/defaults.env"} <= found


def test_nothing_is_copied_into_the_sources(wheel, sources):
    assert not (sources / "fairseq_compress" / "configs").exists()


def test_the_version_is_written_once():
    """Where a version stands twice, one of them is wrong some day."""
    for name in ("setup.py", "pyproject.toml", "CITATION.cff", "README.md"):
        assert fairseq_compress.__version__ not in (ROOT / name).read_text()
