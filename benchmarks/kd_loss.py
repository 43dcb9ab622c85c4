"""Time and extra memory of the fused word-level distillation loss relative to plain PyTorch.

    python benchmarks/kd_loss.py [--tokens 3200] [--vocabulary 32000] [--temperature 1 2] [--runs 7]

The peer follows the formula: ``log_softmax`` of the student, fairseq's label-smoothed cross-entropy, ``F.kl_div`` with
the teacher's softmax; forward and backward in float32. Time: medians of interleaved runs in one process. Extra memory:
the growth of the peak resident size of the process above its size before the loss, each variant in a new process, so
that neither can reuse memory of the other.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from measure import header, medians, peak_growth

from fairseq_compress.functional.losses.word_level_kd import word_level_kd_loss

ALPHA, SMOOTHING, PADDING = 0.5, 0.1, 1


def naive(student: torch.Tensor, teacher: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    gold, _ = label_smoothed_nll_loss(F.log_softmax(student, dim=-1), target, SMOOTHING, ignore_index=PADDING)
    kd = F.kl_div(
        F.log_softmax(student / temperature, dim=-1), F.softmax(teacher / temperature, dim=-1), reduction="none"
    )
    kd = kd.sum(-1).masked_fill(target.eq(PADDING), 0.0).sum()
    return ALPHA * gold + (1 - ALPHA) * temperature**2 * kd


def fused(student: torch.Tensor, teacher: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    return word_level_kd_loss(
        student,
        [teacher],
        target,
        temperature=temperature,
        gold_weight=ALPHA,
        kd_weight=1 - ALPHA,
        label_smoothing=SMOOTHING,
        padding_idx=PADDING,
    ).loss


VARIANTS = {"naive": naive, "fused": fused}


def inputs(tokens: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(tokens, vocabulary, generator=generator).mul_(3).requires_grad_()
    teacher = torch.randn(tokens, vocabulary, generator=generator).mul_(3)
    return student, teacher, torch.randint(4, vocabulary, (tokens,), generator=generator)


def times(tokens: int, vocabulary: int, temperature: float, runs: int, cpu_time: bool) -> dict[str, float]:
    """Median seconds of forward and backward, the variants in turn."""
    student, teacher, target = inputs(tokens, vocabulary)

    def step(variant: Callable[..., torch.Tensor]) -> None:
        student.grad = None
        variant(student, teacher, target, temperature).backward()

    return medians({name: lambda v=variant: step(v) for name, variant in VARIANTS.items()}, runs, cpu_time)


def extra_memory(name: str, tokens: int, vocabulary: int, temperature: float) -> int:
    """Bytes of peak resident size above the inputs, in this process."""
    student, teacher, target = inputs(tokens, vocabulary)
    return peak_growth(lambda: VARIANTS[name](student, teacher, target, temperature).backward())


def measure_memory(name: str, arguments: argparse.Namespace, temperature: float) -> int:
    command = [sys.executable, __file__, "--memory-of", name, "--temperature", str(temperature)]
    command += ["--tokens", str(arguments.tokens), "--vocabulary", str(arguments.vocabulary)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=3200)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--temperature", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true", help="for a machine with other work, at one thread")
    parser.add_argument("--memory-of", choices=sorted(VARIANTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(extra_memory(arguments.memory_of, arguments.tokens, arguments.vocabulary, arguments.temperature[0]))
        return
    text = f"word-level KD loss, {arguments.tokens} tokens, V={arguments.vocabulary}, float32, forward + backward"
    print(header(text, arguments.runs, arguments.cpu_time))
    for temperature in arguments.temperature:
        seconds = times(arguments.tokens, arguments.vocabulary, temperature, arguments.runs, arguments.cpu_time)
        memory = {name: measure_memory(name, arguments, temperature) for name in VARIANTS}
        for name in VARIANTS:
            print(f"  T={temperature:g} {name}: {seconds[name] * 1000:8.1f} ms   {memory[name] / 2**20:8.1f} MiB extra")
        print(f"  T={temperature:g} fused / naive: time {seconds['fused'] / seconds['naive']:.3f} (mark 0.35)   "
              f"memory {memory['fused'] / memory['naive']:.3f} (mark 0.20)")  # fmt: skip


if __name__ == "__main__":
    main()
