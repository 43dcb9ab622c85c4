"""Batches in which the student's own translations stand in for the references (arXiv:2306.13649)."""

from argparse import Namespace
from typing import Any

import torch
from fairseq.data import data_utils
from torch import Tensor, nn

from fairseq_compress.models.student_output import unwrapped

EXTRA_LENGTH = 10  # tokens by which a sample may exceed the longest reference of its batch


def coin(seed: int) -> float:
    """A number in [0, 1) that depends on the seed alone."""
    return torch.rand((), generator=torch.Generator().manual_seed(seed)).item()


@torch.no_grad()
def student_samples(model: nn.Module, task: Any, sample: dict[str, Any], seed: int) -> dict[str, Any]:
    """``sample`` with a translation y ~ p(y | x) of the student for each source, by fairseq's sequence generator.

    The model is in eval mode. The draws depend on ``seed`` alone and leave torch's generators as they were.
    """
    student, target = unwrapped(model), sample["target"]
    was_training = student.training
    # fairseq's length is without the end of the sentence.
    options = Namespace(
        beam=1, sampling=True, max_len_a=0, max_len_b=target.size(1) - 1 + EXTRA_LENGTH, temperature=1.0
    )
    devices = [target.device] if target.device.type == "cuda" else []
    try:
        generator = task.build_generator([student], options)  # this puts the model into eval mode
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            source = {key: value for key, value in sample["net_input"].items() if key != "prev_output_tokens"}
            found = generator.generate([student], {"net_input": source})
    finally:
        student.train(was_training)
    return _with_targets(sample, [hypotheses[0]["tokens"] for hypotheses in found], task.target_dictionary)


def _with_targets(sample: dict[str, Any], tokens: list[Tensor], dictionary: Any) -> dict[str, Any]:
    """A batch of fairseq with other targets, each with its end of sentence."""
    pad, eos, device = dictionary.pad(), dictionary.eos(), sample["target"].device
    tokens = [row.to(device) for row in tokens]
    target = data_utils.collate_tokens(tokens, pad, eos)
    previous = data_utils.collate_tokens(tokens, pad, eos, move_eos_to_beginning=True)
    net_input = {**sample["net_input"], "prev_output_tokens": previous}
    return {**sample, "net_input": net_input, "target": target, "ntokens": sum(len(row) for row in tokens)}
