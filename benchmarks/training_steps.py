"""Time of whole training steps: criterions of the package, and its model, relative to stock fairseq.

    python benchmarks/training_steps.py [--arch transformer_student_tiny] [--vocabulary 32000] [--runs 7]

A step is what fairseq does for one batch: criterion, backward, clipping, Adam. The students have the same weights and
dropout. Peers: fairseq's ``label_smoothed_cross_entropy`` on fairseq's ``transformer`` of the same shape (stock), and
on the package's student. Ratios within one run. The text is random: translation quality is not measured.
"""

import argparse
import logging
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from fairseq import models
from fairseq.criterions import FairseqCriterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.data import Dictionary
from fairseq.optim.adam import FairseqAdam
from measure import header, medians
from omegaconf import OmegaConf
from torch import nn

import fairseq_compress
from fairseq_compress.criterions.label_smoothed import FusedLabelSmoothedConfig, FusedLabelSmoothedCriterion
from fairseq_compress.criterions.terms import word_level
from fairseq_compress.criterions.word_level_kd import WordLevelKDConfig, WordLevelKDCriterion
from fairseq_compress.models.presets import PRESETS

SMOOTHING, K = 0.1, 8
ADAM = {
    "lr": [1e-4], "adam_betas": "(0.9, 0.98)", "adam_eps": 1e-8, "weight_decay": 0.0, "use_old_adam": False,
    "fp16_adam_stats": False, "tpu": False,
}  # fmt: skip


def build(architecture: str, preset: str, task: Any) -> nn.Module:
    """A model of the preset's shape; the same seed gives ours and fairseq's the same weights."""
    args = argparse.Namespace(arch=architecture, dropout=0.1)
    PRESETS[preset].apply(args)
    torch.manual_seed(0)
    return models.build_model(args, task).train()


def batch(sentences: int, length: int, vocabulary: int) -> dict[str, Any]:
    """A fifth of it is padding; it carries a cached teacher, as ``TeacherCacheDataset`` makes it."""
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randint(4, vocabulary, (2, sentences, length), generator=generator)
    lengths = torch.randint(length * 3 // 5, length + 1, (sentences, 1), generator=generator)
    source[torch.arange(length).flip(0) >= lengths] = 1  # left, as fairseq pads a source
    target[torch.arange(length) >= lengths] = 1
    first = torch.randint(0, vocabulary - K, (sentences, length, 1), generator=generator)
    cached = {
        "ids": first + torch.arange(K),
        "probabilities": torch.full((sentences, length, K), 0.1).half(),
        "rest": torch.full((sentences, length), 0.2).half(),
    }
    net_input = {"src_tokens": source, "src_lengths": lengths.squeeze(1), "prev_output_tokens": target.roll(1, 1)}
    tokens = int(target.ne(1).sum())
    return {"net_input": net_input, "target": target, "ntokens": tokens, word_level.SAMPLE_KEY: cached}


def training_step(model: nn.Module, criterion: FairseqCriterion, sample: dict[str, Any]) -> Callable[[], None]:
    optimizer = FairseqAdam(OmegaConf.create(ADAM), list(model.parameters()))

    def run() -> None:
        optimizer.zero_grad()
        loss, sample_size, _ = criterion(model, sample)
        optimizer.backward(loss)
        optimizer.multiply_grads(1 / sample_size)
        optimizer.clip_grad_norm(1.0)
        optimizer.step()

    return run


def steps(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    dictionary = Dictionary()
    for number in range(options.vocabulary - len(dictionary)):
        dictionary.add_symbol(str(number))
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    stock = LabelSmoothedCrossEntropyCriterion(task, sentence_avg=False, label_smoothing=SMOOTHING)
    values = {"label_smoothing": SMOOTHING, "sentence_avg": False}
    fused = FusedLabelSmoothedCriterion(FusedLabelSmoothedConfig(**values), task)
    word_level.attach_teacher_cache = lambda *_: None  # the batch carries a cache already
    cfg = WordLevelKDConfig(**values, teacher_cache="none", kd_temperature=options.temperature)
    cached = WordLevelKDCriterion(cfg, task)
    sample = batch(options.sentences, options.length, options.vocabulary)
    pairs = {
        "stock": ("transformer", stock),
        "our student, stock cross-entropy": (options.arch, stock),
        "our student, fused cross-entropy": (options.arch, fused),
        "our student, cached KD": (options.arch, cached),
    }
    return {
        name: training_step(build(architecture, options.arch, task), criterion, sample)
        for name, (architecture, criterion) in pairs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=sorted(PRESETS), default="transformer_student_tiny")
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--sentences", type=int, default=80)
    parser.add_argument("--length", type=int, default=30)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true", help="for a machine with other work, at one thread")
    options = parser.parse_args()
    logging.disable(logging.INFO)  # of fairseq's imports
    warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")  # of fairseq's attention
    fairseq_compress.register()
    text = (
        f"training step, {options.arch}, V={options.vocabulary}, batch {options.sentences} x {options.length}, float32"
    )
    print(header(text, options.runs, options.cpu_time))
    seconds = medians(steps(options), options.runs, options.cpu_time)
    for name, value in seconds.items():
        print(f"  {name:<34}{value * 1000:9.1f} ms")
    stock, plain, fused, cached = seconds.values()
    print(f"  fused cross-entropy / stock fairseq: {fused / stock:.3f} (mark 1.00)")
    print(f"  cached KD / cross-entropy of the same student, fairseq's criterion: {cached / plain:.3f} (mark 1.05)")
    print(f"  cached KD / cross-entropy of the same student, our criterion: {cached / fused:.3f} (mark 1.05)")


if __name__ == "__main__":
    main()
