"""Losses computed from hidden states relative to losses from logits: time, and memory at two vocabulary sizes.

    python benchmarks/hidden_states.py [--tokens 3200] [--width 256] [--vocabulary 8000 32000] [--runs 5]

float32, from the hidden states to their gradient and the gradient of the output matrix. Time: the peer is the same
fused loss after ``F.linear``; medians of interleaved runs in one process. Extra memory: the growth of the peak resident
size of the process without the two gradients, each variant in a new process. From hidden states it must not depend on
the vocabulary size.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import header, medians, peak_growth
from torch import Tensor

from fairseq_compress.functional.losses.label_smoothed import label_smoothed_loss
from fairseq_compress.functional.losses.outputs import Output, Projected, TopK
from fairseq_compress.functional.losses.word_level_kd import word_level_kd_loss

SMOOTHING, TEACHER_WIDTH, K = 0.1, 512, 8
LOSSES = ("label-smoothed", "cached KD", "live KD")
PATHS = ("logits", "hidden")


class Case:
    """One loss with random inputs; a live teacher is twice as wide as the student."""

    def __init__(self, loss: str, tokens: int, width: int, vocabulary: int) -> None:
        generator = torch.Generator().manual_seed(1)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.loss = loss
        self.hidden = draw(tokens, width).requires_grad_()
        self.weight = draw(vocabulary, width).mul_(3 * width**-0.5).requires_grad_()
        self.target = torch.randint(4, vocabulary, (tokens,), generator=generator)
        if loss == "cached KD":
            ids = torch.randint(0, vocabulary - K, (tokens, 1), generator=generator) + torch.arange(K)
            self.cache = TopK(ids, torch.full((tokens, K), 0.1).half(), torch.full((tokens,), 0.2).half())
        if loss == "live KD":
            self.teacher = Projected(draw(tokens, TEACHER_WIDTH), draw(vocabulary, TEACHER_WIDTH).mul_(0.1))

    def run(self, path: str) -> None:
        self.hidden.grad = self.weight.grad = None
        student = Projected(self.hidden, self.weight) if path == "hidden" else F.linear(self.hidden, self.weight)
        self._loss(student, path).backward()

    def _loss(self, student: Output, path: str) -> Tensor:
        if self.loss == "label-smoothed":
            return label_smoothed_loss(student, self.target, label_smoothing=SMOOTHING).loss
        if self.loss == "cached KD":
            return word_level_kd_loss(student, self.cache, self.target, label_smoothing=SMOOTHING).loss
        teacher = self.teacher if path == "hidden" else F.linear(*self.teacher[:2])
        return word_level_kd_loss(student, [teacher], self.target, label_smoothing=SMOOTHING).loss

    def extra_memory(self, path: str) -> int:
        """Bytes above the inputs and their gradients."""
        gradients = 4 * (self.hidden.numel() + self.weight.numel())
        return peak_growth(lambda: self.run(path)) - gradients


def measure_memory(loss: str, path: str, vocabulary: int, options: argparse.Namespace) -> int:
    command = [sys.executable, __file__, "--memory-of", loss, path, "--vocabulary", str(vocabulary)]
    command += ["--tokens", str(options.tokens), "--width", str(options.width)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_times(loss: str, vocabulary: int, options: argparse.Namespace) -> None:
    case = Case(loss, options.tokens, options.width, vocabulary)
    variants: dict[str, Callable[[], None]] = {path: lambda path=path: case.run(path) for path in PATHS}
    seconds = medians(variants, options.runs, options.cpu_time)
    times = ", ".join(f"{path} {value * 1000:.1f} ms" for path, value in seconds.items())
    ratio = seconds["hidden"] / seconds["logits"]
    print(f"  {loss}, V={vocabulary}: {times}, hidden / logits {ratio:.3f} (mark 1.00)", flush=True)


def print_memory(loss: str, options: argparse.Namespace) -> None:
    for path in PATHS:
        extra = [measure_memory(loss, path, vocabulary, options) for vocabulary in options.vocabulary]
        sizes = ", ".join(f"{e / 2**20:.1f} MiB at V={v}" for e, v in zip(extra, options.vocabulary, strict=True))
        mark = " (mark 1.30)" if path == "hidden" else ""
        print(f"  {loss}, {path}: {sizes}, last to first {extra[-1] / extra[0]:.3f}{mark}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=3200)
    parser.add_argument("--width", type=int, default=256, help="of the student")
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[8000, 32000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="for a machine with other work, at one thread")
    parser.add_argument("--memory-of", nargs=2, metavar=("LOSS", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        loss, path = options.memory_of
        Case(loss, 8, 8, 16).run(path)  # what is loaded at the first call is none of the loss's memory
        print(Case(loss, options.tokens, options.width, options.vocabulary[0]).extra_memory(path))
        return
    print(header(f"hidden states to gradients, {options.tokens} tokens, width {options.width}, float32",
                 options.runs, options.cpu_time))  # fmt: skip
    for loss in LOSSES:
        for vocabulary in options.vocabulary:
            print_times(loss, vocabulary, options)
    print("extra memory, above inputs and their gradients")
    for loss in LOSSES:
        print_memory(loss, options)


if __name__ == "__main__":
    main()
