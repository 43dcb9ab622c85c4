r"""Log-probability of the source of each hypothesis of an n-best file under a reverse model.

For a hypothesis y of the source x, tokens x_1 ... x_n with the end of the sentence as the last one:

    score(x | y) = 1/n · Σ_i log p(x_i | x_1 ... x_{i-1}, y)      in nats

Incomplete and wrong translations have low scores (dual conditional cross-entropy filtering, Junczys-Dowmunt 2018,
arXiv:1809.00197; Firefox's students drop the worst 5%). Equals ``fairseq-generate --score-reference`` times log 2.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from fairseq import utils
from fairseq.data.language_pair_dataset import collate
from torch import Tensor
from torch.nn import functional

from fairseq_compress.functional.losses.outputs import Projected, compute_dtype, shape_of
from fairseq_compress.models.student_output import student_output
from fairseq_compress.teachers.loading import LoadedModels

LOGITS_AT_ONCE = 1 << 22  # 16 MB in float32
UNSCORED = -math.inf  # untranslated, or too long for the model


class Record(NamedTuple):
    """A hypothesis as the reverse model's source, and its source as that model's target: ids with EOS."""

    hypothesis: np.ndarray
    source: np.ndarray
    scorable: bool


def record_scores(models: LoadedModels, records: list[Record]) -> list[float]:
    """The score of each record of a batch; :data:`UNSCORED` for one that cannot be scored."""
    scores = [UNSCORED] * len(records)
    samples = [
        {"id": place, "source": torch.from_numpy(record.hypothesis), "target": torch.from_numpy(record.source)}
        for place, record in enumerate(records)
        if record.scorable
    ]
    if samples:
        batch = collate(samples, models.source.pad(), models.source.eos(), left_pad_source=True, left_pad_target=False)
        device = device_of(models)
        batch = utils.move_to_cuda(batch, device) if device.type == "cuda" else batch
        for place, score in zip(batch["id"].tolist(), _sentence_scores(models, batch).tolist(), strict=True):
            scores[place] = score
    return scores


def _sentence_scores(models: LoadedModels, batch: Mapping[str, Any]) -> Tensor:
    """(B,): the mean log-probability of the target tokens, under the mean of the models' probabilities."""
    target: Tensor = batch["target"]
    with torch.no_grad():
        outputs = [student_output(model, batch["net_input"]) for model in models.models]
    members = torch.stack([target_log_probabilities(output, target.flatten()) for output in outputs])
    tokens = (torch.logsumexp(members, dim=0) - math.log(len(members))).view_as(target)
    real = target.ne(models.target.pad())
    return tokens.masked_fill(~real, 0.0).sum(dim=1, dtype=torch.float64) / real.sum(dim=1)


def target_log_probabilities(output: Tensor | Projected, target: Tensor) -> Tensor:
    """log softmax(z)_y of each row, (N,); only some rows of logits exist at a time."""
    compute, (rows, vocabulary) = compute_dtype(output), shape_of(output)
    found = torch.empty(rows, dtype=compute, device=target.device)
    step = max(1, LOGITS_AT_ONCE // vocabulary)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        if isinstance(output, Projected):
            weight = output.weight.to(output.hidden.dtype)
            logits = functional.linear(output.hidden[part], weight, output.bias).to(compute)
        else:
            logits = output[part].to(compute)
        found[part] = logits.gather(1, target[part, None]).squeeze(1) - torch.logsumexp(logits, dim=1)
    return found


def device_of(models: LoadedModels) -> torch.device:
    """The device of the models."""
    device: torch.device = next(models.models[0].parameters()).device
    return device
