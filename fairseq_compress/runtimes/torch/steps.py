"""Decoding steps of a model or an ensemble in torch; candidates are selected on the device of the model.

Faster than fairseq's ``SequenceGenerator`` in the decoding step (``tree_decoder.py``), in one cheap pass over the
vocabulary (:func:`best_candidates`), and by one row a sentence in the first step.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fairseq_compress.decoding.beam_search import Candidates, Choice, Floats, Ints
from fairseq_compress.runtimes.torch.step_decoders import State
from fairseq_compress.runtimes.torch.tree_decoder import COLUMNS, TreeState

# Logits computed at a time: memory does not grow with the batch; on a CPU 16 MB, of which much stays in a cache.
LOGITS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 27}


class TorchSteps:
    """See :class:`fairseq_compress.decoding.beam_search.Steps`; the probabilities of the ensemble are averaged."""

    def __init__(self, states: Sequence[State], eos: int, device: torch.device) -> None:
        self._states, self._eos, self._device = states, eos, device

    def candidates(self, tokens: Ints, scores: Floats, choice: Choice) -> Candidates:
        hypotheses, forbidden = choice.repeated
        parts: list[tuple[Tensor, ...]] = []
        first = 0  # sentence of the part
        for lprobs in self._lprobs(self._put(tokens)):
            batch, group, _ = lprobs.shape
            eos = lprobs[:, :, self._eos].clone()
            for token, penalty in choice.penalties.items():
                if penalty:
                    lprobs[:, :, token] -= penalty
            if len(hypotheses):
                here = (hypotheses >= first * group) & (hypotheses < (first + batch) * group)
                pairs = self._put(hypotheses[here] - first * group), self._put(forbidden[here])
                lprobs.view(batch * group, -1)[pairs] = -math.inf
            before = self._put(scores[first : first + batch])
            parts.append((*best_candidates(lprobs, before, choice.most), eos))
            first += batch
        return Candidates(*(torch.cat(columns).cpu().numpy() for columns in zip(*parts, strict=True)))

    def reorder(self, parents: Ints) -> None:
        for state in self._states:
            state.reorder(self._put(parents))

    def keep(self, rows: Ints) -> None:
        for state in self._states:
            state.keep(self._put(rows))

    def _put(self, array: Ints | Floats) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _lprobs(self, tokens: Tensor) -> Iterator[Tensor]:
        """Log-probabilities ``(b, G, V)`` of the next tokens, of b sentences at a time."""
        batch, group = tokens.shape
        state = self._states[0]
        if len(self._states) == 1 and isinstance(state, TreeState):
            decoder = state.decoder
            size = max(1, LOGITS_AT_ONCE[self._device.type] // (group * decoder.columns))
            for some in state.hidden(tokens).split(size * group):
                yield torch.log_softmax(decoder.logits(some), dim=-1).view(-1, group, decoder.columns)
            return
        members = [state.log_probs(tokens) for state in self._states]
        mean = members[0]
        if len(members) > 1:
            mean = torch.logsumexp(torch.stack(members), dim=0) - math.log(len(members))
        yield mean.view(batch, group, -1)


def best_candidates(lprobs: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best of ``scores[b, g] + lprobs[b, g, v]`` over g and v for each b, ``lprobs`` ``(B, G, V)``.

    One pass over the vocabulary takes the maximum of each block of 64 entries; the best ``count`` entries are in the
    best ``count`` blocks. Where V is no multiple of 64: one plain ``topk``.

    Returns:
        cumulated scores, tokens v and parents g, ``(B, K)`` each, best first.
    """
    batch, group, entries = lprobs.shape
    count = min(count, group * entries - 1)
    block = COLUMNS if entries % COLUMNS == 0 and group * entries // COLUMNS >= count else 1
    blocks = lprobs.view(batch, group, -1, block)
    tops = blocks.amax(-1) if block > 1 else lprobs
    best, top = (tops + scores[:, :, None]).flatten(1).topk(count)  # blocks, (B, count)
    per_hypothesis = entries // block
    if block == 1:
        return best, top % per_hypothesis, top // per_hypothesis
    inside = blocks.flatten(1, 2).gather(1, top[:, :, None].expand(-1, -1, block))
    inside = inside + scores.gather(1, top // per_hypothesis)[:, :, None]
    best, place = inside.flatten(1).topk(count)
    top = top.gather(1, place // block)
    return best, top % per_hypothesis * block + place % block, top // per_hypothesis
