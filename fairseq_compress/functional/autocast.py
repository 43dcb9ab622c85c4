"""Native bfloat16 support of a device; emulated bfloat16 is many times slower than float32.

``python -m fairseq_compress.functional.autocast cpu`` (or ``cuda``) prints what ``--autocast-dtype auto`` is.
"""

import functools
import logging
import sys
from typing import Any

import torch

# No float16: it needs its gradients scaled, which is what fairseq's own --fp16 does.
AUTOCAST_DTYPES = {"none": None, "auto": None, "bfloat16": torch.bfloat16}
# Names of torch for the instructions of x86 and ARM processors.
CPU_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")

logger = logging.getLogger(__name__)


def multiplies_bfloat16(device: str) -> bool:
    """Whether ``cpu`` or ``cuda`` has instructions for products of bfloat16."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and has_instructions(torch.cpu)


def has_instructions(cpu: Any) -> bool:
    """The same of a processor, from ``torch.cpu``, whose functions differ between versions of torch."""
    if hasattr(cpu, "get_capabilities"):
        capabilities = cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in CPU_INSTRUCTIONS)
    questions = (getattr(cpu, name, lambda: False) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(question() for question in questions)


def native_autocast(device: str) -> str:
    """What ``auto`` stands for on ``cpu`` or ``cuda``: ``bfloat16`` or ``none``."""
    return "bfloat16" if multiplies_bfloat16(device) else "none"


@functools.cache
def warn_if_emulated(option: str, device: str) -> None:
    """Warn once if the device emulates bfloat16."""
    if device in ("cpu", "cuda") and not multiplies_bfloat16(device):
        kind = "processor" if device == "cpu" else "GPU"
        logger.warning(
            f"{option} bfloat16: this {kind} has no bfloat16 instructions and emulates it, up to 20 times slower; "
            f"use {'auto or none' if option == '--autocast-dtype' else 'float32'}"
        )


if __name__ == "__main__":
    print(native_autocast(sys.argv[1]))
