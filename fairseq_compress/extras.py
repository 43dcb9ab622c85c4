"""Optional packages, and the extra of fairseq-compress that installs each."""

from collections.abc import Iterator
from contextlib import contextmanager

from fairseq_compress.errors import MissingPackageError

# Import name -> extra, as setup.py declares them. All other imports are base requirements.
EXTRA_OF = {
    **dict.fromkeys(("torch", "fairseq", "fairseq_cli", "omegaconf", "yaml", "safetensors", "onnx", "faiss"), "train"),
    **dict.fromkeys(("matplotlib", "sacrebleu"), "report"),  # sacrebleu is in train too
    "ctranslate2": "ctranslate2",
    "fxtranslate": "bergamot",
    "sacremoses": "moses",  # in train and report too
    "wandb": "wandb",
    "eflomal": "eflomal",
}
# fairseq-fixed is built from source and needs these first; pip's isolated build would download a second torch.
BUILD_TOOLS = "pip install torch numpy cython setuptools wheel"


@contextmanager
def explained() -> Iterator[None]:
    """Replace the error of a missing optional package by one line that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        raise MissingPackageError(
            f"requires the package {package}, which is not installed: {_command(EXTRA_OF[package])}"
        ) from None


def _command(extra: str) -> str:
    if extra == "train":
        return f"{BUILD_TOOLS} && pip install --no-build-isolation 'fairseq-compress[{extra}]'"
    return f"pip install 'fairseq-compress[{extra}]'"
