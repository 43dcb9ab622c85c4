"""Time of word-level distillation from a teacher's cached top k relative to label-smoothed cross-entropy.

    python benchmarks/cached_kd.py [--tokens 3200] [--vocabulary 32000] [--k 8] [--temperature 1 2] [--runs 7]

The peer is the faster of two: PyTorch's ``F.cross_entropy(label_smoothing=...)``, and fairseq's ``log_softmax`` with
``label_smoothed_nll_loss``. Ratios within one run, float32, from the logits to their gradient.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from measure import header, medians
from torch import Tensor

from fairseq_compress.functional.losses.label_smoothed import label_smoothed_loss
from fairseq_compress.functional.losses.outputs import TopK
from fairseq_compress.functional.losses.word_level_kd import word_level_kd_loss

SMOOTHING, PADDING = 0.1, 1


def inputs(tokens: int, vocabulary: int, k: int) -> tuple[Tensor, TopK, Tensor]:
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(tokens, vocabulary, generator=generator).mul_(3).requires_grad_()
    teacher = torch.randn(tokens, vocabulary, generator=generator).mul_(3).softmax(dim=-1)
    probabilities, ids = teacher.topk(k, dim=-1)
    cache = TopK(ids, probabilities.half(), (1 - probabilities.sum(dim=-1)).half())
    return student, cache, torch.randint(4, vocabulary, (tokens,), generator=generator)


def variants(student: Tensor, cache: TopK, target: Tensor, temperatures: list[float]) -> dict[str, Callable[[], None]]:
    def run(loss: Callable[[], Tensor]) -> Callable[[], None]:
        def step() -> None:
            student.grad = None
            loss().backward()

        return step

    plain = {
        "F.cross_entropy": lambda: F.cross_entropy(
            student, target, label_smoothing=SMOOTHING, ignore_index=PADDING, reduction="sum"
        ),
        "fairseq's cross-entropy": lambda: label_smoothed_nll_loss(
            F.log_softmax(student, dim=-1), target, SMOOTHING, ignore_index=PADDING
        )[0],
        "our cross-entropy": lambda: label_smoothed_loss(student, target, label_smoothing=SMOOTHING).loss,
    }
    ours = {
        f"cached KD, T={temperature:g}": lambda temperature=temperature: (
            word_level_kd_loss(student, cache, target, label_smoothing=SMOOTHING, temperature=temperature).loss
        )
        for temperature in temperatures
    }
    return {name: run(loss) for name, loss in (plain | ours).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=3200)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--temperature", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true", help="for a machine with other work, at one thread")
    options = parser.parse_args()
    print(header(f"loss and gradient, {options.tokens} tokens, V={options.vocabulary}, k={options.k}, float32",
                 options.runs, options.cpu_time))  # fmt: skip
    data = inputs(options.tokens, options.vocabulary, options.k)
    seconds = medians(variants(*data, options.temperature), options.runs, options.cpu_time)
    plain = min(seconds["F.cross_entropy"], seconds["fairseq's cross-entropy"])
    for name, value in seconds.items():
        mark = " (mark 1.00)" if name.startswith("cached") else ""
        print(f"  {name:<24}{value * 1000:9.1f} ms   {value / plain:.3f} of plain{mark}")


if __name__ == "__main__":
    main()
