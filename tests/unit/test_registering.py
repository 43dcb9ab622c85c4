"""Our classes are registered with fairseq, whichever of the two packages is imported first."""

import shutil
import subprocess
import sys
from pathlib import Path

import fairseq
import pytest

from fairseq_compress.cli.main import main
from tests.conftest import PLUGIN, ROOT, run_command

SHOW = (
    "from fairseq.tasks import TASK_REGISTRY; from fairseq.models import ARCH_MODEL_REGISTRY; "
    "from fairseq.criterions import CRITERION_REGISTRY; from fairseq import checkpoint_utils; "
    "print('compressed_translation' in TASK_REGISTRY, 'transformer_student_tiny' in ARCH_MODEL_REGISTRY, "
    "'word_level_kd' in CRITERION_REGISTRY, hasattr(checkpoint_utils.load_checkpoint_to_cpu, '__wrapped__'))"
)


def python(code: str, **options: object) -> str:
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "imports",
    [
        "import fairseq, fairseq_compress",
        "import fairseq_compress, fairseq",
        "import fairseq_compress, importlib.util; importlib.util.find_spec('fairseq'); import fairseq",
        "import fairseq_compress; from fairseq.models.transformer import TransformerModel",
        "import fairseq_compress; fairseq_compress.register()",
        "from fairseq_compress.models.compressed_transformer import CompressedTransformerModel; "
        "import fairseq_compress; fairseq_compress.register()",
    ],
)
def test_either_order(imports: str) -> None:
    assert python(f"{imports}; {SHOW}").split() == ["True"] * 4


def test_the_plugin_as_user_dir_after_the_package() -> None:
    """fairseq then takes it for imported, and would go on without our classes."""
    code = (
        f"import fairseq_compress, argparse; from fairseq import utils; "
        f"utils.import_user_module(argparse.Namespace(user_dir={str(PLUGIN)!r})); {SHOW}"
    )
    assert python(code).split() == ["True"] * 4


def test_importing_the_package_alone_loads_neither_torch_nor_fairseq() -> None:
    code = "import sys, fairseq_compress; print({'torch', 'fairseq', 'numpy'} & set(sys.modules))"
    assert python(code) == "set()\n"


def test_the_verb_prints_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["user-dir"]) == 0
    assert capsys.readouterr().out == f"{ROOT / 'fairseq_compress'}\n"


def test_installed_as_a_wheel_the_name_alone_is_enough(tmp_path: Path) -> None:
    """fairseq looks for a relative path beside its own package, too."""
    skip = shutil.ignore_patterns("__pycache__", "examples", "*.c", "*.cpp", "*.cu")
    shutil.copytree(Path(fairseq.__file__).parent, tmp_path / "site" / "fairseq", ignore=skip)
    shutil.copytree(PLUGIN, tmp_path / "site" / "fairseq_compress", ignore=skip)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import argparse; from fairseq import utils; "
        f"utils.import_user_module(argparse.Namespace(user_dir='fairseq_compress')); {SHOW}"
    )
    assert python(code, cwd=tmp_path, env={"PYTHONPATH": ""}).split() == ["True"] * 4


def test_a_missing_architecture_is_named(train_arguments: list[str], tmp_path: Path) -> None:
    result = run_command("fairseq-train", *train_arguments, "--save-dir", tmp_path, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout
    assert result.stdout.splitlines()[-1] == (
        "fairseq-compress: error: --arch: must name an architecture, such as transformer_small, got none"
    )
