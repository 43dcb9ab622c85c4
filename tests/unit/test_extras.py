"""Optional packages: each has an extra that brings it, and a missing one is one line that says which."""

import ast
import re
import runpy
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
import setuptools

from fairseq_compress.cli import user_dir
from fairseq_compress.cli.main import main
from fairseq_compress.errors import MissingPackageError
from fairseq_compress.extras import EXTRA_OF, explained
from tests.conftest import PLUGIN, ROOT


@pytest.fixture(scope="module")
def metadata():
    """What setup.py says."""
    said = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **options: said.update(options))
        runpy.run_path(str(ROOT / "setup.py"))
    return said


def names(requirements):
    return {re.split(r"[^\w-]", requirement)[0].lower() for requirement in requirements}


def third_party_imports():
    found = set()
    for path in PLUGIN.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    return found - {"fairseq_compress"} - set(sys.stdlib_module_names)


def test_every_import_is_of_a_requirement(metadata):
    base, distributions = names(metadata["install_requires"]), packages_distributions()
    for package in third_party_imports() | EXTRA_OF.keys():
        wanted = {name.lower() for name in distributions.get(package, [package])}  # eflomal may be missing
        if package not in EXTRA_OF:
            assert wanted & base, f"{package} is neither a base requirement nor in EXTRA_OF"
        elif package != "omegaconf":  # of fairseq
            assert wanted & names(metadata["extras_require"][EXTRA_OF[package]]), package


def test_all_is_all(metadata):
    extras = metadata["extras_require"]
    others = [names(extras[name]) for name in extras if name not in ("all", "dev", "eflomal")]  # eflomal: GPL-3.0
    assert names(extras["all"]) == set().union(*others)
    assert not names(metadata["install_requires"]) & {"torch", "fairseq-fixed"}


def test_ctranslate2_without_the_heap_overflow(metadata):
    assert metadata["extras_require"]["ctranslate2"] == ["ctranslate2>=4.8.1"]


@pytest.mark.parametrize("extra", ["train", "bergamot", "ctranslate2", "eflomal", "moses", "report", "wandb"])
def test_the_line_names_the_extra(extra):
    package = next(name for name, one in EXTRA_OF.items() if one == extra)
    with pytest.raises(MissingPackageError, match=re.escape(f"'fairseq-compress[{extra}]'")) as caught, explained():
        raise ModuleNotFoundError(f"No module named '{package}.parts'", name=f"{package}.parts")
    assert "\n" not in str(caught.value)
    assert ("--no-build-isolation" in str(caught.value)) == (extra == "train")


def test_a_module_of_our_own_is_a_bug():
    with pytest.raises(ModuleNotFoundError, match="absent"), explained():
        import fairseq_compress.absent  # noqa: F401


WITHOUT = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
hidden = sys.argv[1].split(",")
sys.meta_path.insert(0, Hidden())
from fairseq_compress.cli.main import main
sys.exit(main(sys.argv[2:]))
"""

SCORE = ["score", "--source-lang", "en", "--target-lang", "cs"]


@pytest.mark.parametrize(
    ("hidden", "verb"),
    [
        ("torch,fairseq,sacrebleu,matplotlib", ["describe", "--checkpoint", "a.pt"]),
        ("torch,fairseq,sacrebleu,matplotlib", ["quantize", "a.pt", "b.safetensors"]),
        ("sacrebleu", [*SCORE, "--hypothesis", "{text}", "--reference", "{text}", "--output", "b"]),
        ("matplotlib", ["report", "--scores", "a.json", "--output", "b"]),
    ],
)
def test_a_verb_without_its_package(hidden, verb, tmp_path):
    (tmp_path / "text").write_text("A line.\n")
    command = [word.format(text=tmp_path / "text") for word in verb]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, hidden, *command], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    start = rf"fairseq-compress {verb[0]}: error: requires the package \w+, which is not installed: pip"
    assert re.match(start, done.stderr)


def test_main_says_it(monkeypatch, capsys):
    def run(args):
        raise ModuleNotFoundError("No module named 'ctranslate2'", name="ctranslate2")

    monkeypatch.setattr("fairseq_compress.cli.decode.Options", user_dir.Options)
    monkeypatch.setattr("fairseq_compress.cli.decode.run", run)
    assert main(["decode"]) == 1
    assert capsys.readouterr().err == (
        "fairseq-compress decode: error: requires the package ctranslate2, which is not installed: "
        "pip install 'fairseq-compress[ctranslate2]'\n"
    )
