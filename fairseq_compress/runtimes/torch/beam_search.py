"""Beam search: the hypotheses and scores of fairseq's ``SequenceGenerator``, in tensors throughout.

In each step a sentence has G hypotheses with cumulated log-probabilities s; its candidates are the 2·beam best of
s + log p(token) over all hypotheses and tokens. A candidate that ends in EOS and is among the first ``beam`` is a
finished hypothesis with the score s / length**lenpen, where the length counts EOS; the first ``beam`` others go on. A
sentence is done with ``beam`` finished hypotheses, or at the greatest length, where EOS is forced.

Where it saves time against fairseq: the decoding step (see ``tree_decoder.py``), one cheap pass over the vocabulary to
find the best (see :func:`best_candidates`), no work in Python for each hypothesis, one row a sentence at first.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_compress.decoding.repeated_ngrams import History
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.runtimes.torch.step_decoders import State, step_decoder
from fairseq_compress.runtimes.torch.tree_decoder import COLUMNS, TreeState
from fairseq_compress.teachers.loading import LoadedModels

# Memory need not grow with the batch; on a CPU 16 MB in float32, of which much stays in a cache.
LOGITS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 27}
SHRINK_BELOW = 0.8  # the batch is copied without its finished sentences when they are more than a fifth of it

# Source tokens of a batch. On a CPU at width 256, all of 1,000 to 4,000 are within 5%, and 500 is 10% slower.
MAX_TOKENS = {"cpu": 2000, "cuda": 16_000}


class Found(NamedTuple):
    """A hypothesis."""

    tokens: list[int]
    """Without EOS."""
    score: float
    """Log-probability / (tokens + 1)**lenpen, in nats."""


class BeamSearch:
    """Search with a model or an ensemble, which averages probabilities.

    Args:
        loaded: the models.
        options: of the search.

    Raises:
        ConfigError: the dictionary is too small for the beam, or a model cannot be decoded in int8.
        CheckpointError: a model has weights that int8 cannot express.
    """

    def __init__(self, loaded: LoadedModels, options: SearchOptions) -> None:
        self.options = options
        self.pad, self.eos, self.unk = loaded.target.pad(), loaded.target.eos(), loaded.target.unk()
        self.longest = loaded.max_target_positions - 1  # without EOS
        if options.beam > len(loaded.target) - 2:  # neither padding nor, in the first step, EOS is chosen
            raise ConfigError(
                f"--beam: must be at most {len(loaded.target) - 2} with this dictionary, got {options.beam}"
            )
        self.decoders = [step_decoder(model, loaded.precision) for model in loaded.models]
        self.device = next(loaded.models[0].parameters()).device

    @torch.inference_mode()
    def search(self, sentences: Sequence[Sequence[int]]) -> list[list[Found]]:
        """Translate a batch of sentences, token ids with EOS each.

        Returns:
            for each sentence its hypotheses, best first: ``beam`` of them, fewer if the greatest length cut it short.

        Raises:
            CheckpointError: the model gives NaN.
        """
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        source = torch.full((len(sentences), int(lengths.max())), self.pad)
        for row, sentence in enumerate(sentences):
            source[row, : len(sentence)] = torch.tensor(sentence)
        source, lengths = source.to(self.device), lengths.to(self.device)
        max_len = min(self.options.greatest_length(source.size(1)), self.longest)
        states: list[State] = [decoder.start(source, lengths) for decoder in self.decoders]
        book = _Book(len(sentences), self.options, self.device)
        history = History(len(sentences), self.options.no_repeat_ngram_size)
        tokens = torch.full((len(sentences), 1), self.eos, device=self.device)
        scores = torch.zeros(len(sentences), 1, device=self.device)
        for step in range(max_len + 1):
            found = self._candidates(states, tokens, scores, self._banned(step, history), step == max_len)
            ends = found.tokens.eq(self.eos) & found.scores.ne(-math.inf)
            unfinished = book.finish(found, ends, step)
            if unfinished == 0 or step == max_len:
                break
            # the first `beam` that do not end, in their order
            order = torch.arange(ends.size(1), device=self.device)
            active = (ends * ends.size(1) + order).topk(self.options.beam, dim=1, largest=False).indices
            tokens, scores, parents = (part.gather(1, active) for part in (found.tokens, found.scores, found.parents))
            book.go_on(tokens, parents)
            if self.options.no_repeat_ngram_size:
                history.go_on(tokens.cpu().numpy(), parents.cpu().numpy())
            for state in states:
                state.reorder(parents)
            if unfinished < SHRINK_BELOW * tokens.size(0):
                rows = book.drop_finished()
                tokens, scores = tokens[rows], scores[rows]
                history.keep(rows.cpu().numpy())
                for state in states:
                    state.keep(rows)
        return book.read()

    def _banned(self, step: int, history: History) -> "Banned":
        hypotheses, tokens = (torch.from_numpy(part).to(self.device) for part in history.repeating())
        return Banned([self.pad, self.eos] if step < self.options.min_len else [self.pad], hypotheses, tokens)

    def _candidates(
        self, states: Sequence[State], tokens: Tensor, scores: Tensor, banned: "Banned", forced: bool
    ) -> "Candidates":
        """The best continuations; ``tokens`` and ``scores`` ``(B, G)`` are those of the hypotheses so far."""
        if len(states) == 1 and isinstance(states[0], TreeState):
            hidden = states[0].hidden(tokens).view(*tokens.shape, -1)
            decoder = states[0].decoder
            size = max(1, LOGITS_AT_ONCE[self.device.type] // (tokens.size(1) * decoder.columns))
            parts: list[Candidates] = []
            for some, their_scores in zip(hidden.split(size), scores.split(size), strict=True):
                logits = decoder.logits(some.flatten(0, 1))
                log_probs = torch.log_softmax(logits, dim=-1).view(*their_scores.shape, -1)
                first = len(parts) * size * tokens.size(1)
                parts.append(
                    self._choose(log_probs, their_scores, banned.among(first, some.size(0) * tokens.size(1)), forced)
                )
            return Candidates(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        members = [state.log_probs(tokens) for state in states]
        mean = members[0]
        if len(states) > 1:
            mean = torch.logsumexp(torch.stack(members), dim=0) - math.log(len(states))
        return self._choose(mean.view(*tokens.shape, -1), scores, banned, forced)

    def _choose(self, log_probs: Tensor, scores: Tensor, banned: "Banned", forced: bool) -> "Candidates":
        if forced:
            best, parents = (log_probs[:, :, self.eos] + scores).sort(dim=1, descending=True)
            return Candidates(best, torch.full_like(parents, self.eos), parents)
        for token in banned.always:
            log_probs[:, :, token] = -math.inf
        log_probs.view(-1, log_probs.size(2))[banned.hypotheses, banned.tokens] = -math.inf
        log_probs[:, :, self.unk] -= self.options.unkpen
        return best_candidates(log_probs, scores, 2 * self.options.beam)


class Banned(NamedTuple):
    """Tokens that must not follow."""

    always: list[int]
    hypotheses: Tensor
    """Numbers of hypotheses that a token may not follow, because it would repeat an n-gram."""
    tokens: Tensor
    """That token."""

    def among(self, first: int, count: int) -> "Banned":
        """What counts for so many hypotheses."""
        inside = (self.hypotheses >= first) & (self.hypotheses < first + count)
        return Banned(self.always, self.hypotheses[inside] - first, self.tokens[inside])


class Candidates(NamedTuple):
    """Continuations of the hypotheses of each sentence, best first; each field is ``(B, k)``."""

    scores: Tensor
    tokens: Tensor
    parents: Tensor
    """Number of the hypothesis in its sentence."""


def best_candidates(log_probs: Tensor, scores: Tensor, count: int) -> Candidates:
    """The best of ``scores[b, g] + log_probs[b, g, v]`` over g and v for each b, ``log_probs`` ``(B, G, V)``.

    One pass over the vocabulary takes the greatest of each block of 64 entries; the best ``count`` entries are in the
    best ``count`` blocks, which alone are looked at more closely. Where V is no multiple of 64: one plain ``topk``.
    """
    batch, group, entries = log_probs.shape
    count = min(count, group * entries - 1)
    block = COLUMNS if entries % COLUMNS == 0 and group * entries // COLUMNS >= count else 1
    blocks = log_probs.view(batch, group, -1, block)
    tops = blocks.amax(-1) if block > 1 else log_probs
    best, top = (tops + scores[:, :, None]).flatten(1).topk(count)  # blocks, (B, count)
    per_hypothesis = entries // block
    if block > 1:
        inside = blocks.flatten(1, 2).gather(1, top[:, :, None].expand(-1, -1, block))
        inside = inside + scores.gather(1, top // per_hypothesis)[:, :, None]
        best, place = inside.flatten(1).topk(count)
        top = top.gather(1, place // block)
        offset = place % block
    else:
        offset = torch.zeros_like(top)
    return Candidates(best, top % per_hypothesis * block + offset, top // per_hypothesis)


class _Book:
    """What a batch has decoded: tokens and parents of every step, and the hypotheses that are finished.

    Tokens are kept with back pointers, so a step writes one number for each hypothesis; rows are those of the whole
    batch, whichever sentences still go on.
    """

    def __init__(self, batch: int, options: SearchOptions, device: torch.device) -> None:
        self._options = options
        self._rows = torch.arange(batch, device=device)  # of the sentences that go on
        self._counts = torch.zeros_like(self._rows)  # their finished hypotheses
        self._tokens: list[Tensor] = []  # for each step (B, beam)
        self._parents: list[Tensor] = []
        self._scores = torch.full((batch, options.beam), -math.inf, device=device)  # of finished hypotheses
        self._steps = torch.zeros(batch, options.beam, dtype=torch.long, device=device)  # in which they ended
        self._last = torch.zeros_like(self._steps)  # the hypothesis of the step before that they continue

    def finish(self, found: Candidates, ends: Tensor, step: int) -> int:
        """Take those of the first ``beam`` candidates that end; return the number of sentences that are not done."""
        beam = self._options.beam
        ends = ends[:, :beam]
        places = self._counts[:, None] + ends.cumsum(1) - 1
        new = ends & (places < beam)
        row, column = new.nonzero(as_tuple=True)
        where = (self._rows[row], places[row, column])
        self._scores[where] = found.scores[row, column] / (step + 1) ** self._options.lenpen
        self._steps[where] = step
        self._last[where] = found.parents[row, column]
        self._counts += new.sum(1)
        return int((self._counts < beam).sum())

    def go_on(self, tokens: Tensor, parents: Tensor) -> None:
        """Note a step of the hypotheses that go on, ``(B, beam)``."""
        for history, values in ((self._tokens, tokens), (self._parents, parents)):
            history.append(torch.zeros_like(self._last).index_copy_(0, self._rows, values))

    def drop_finished(self) -> Tensor:
        """The sentences that are not done, as rows of those that went on so far."""
        rows = (self._counts < self._options.beam).nonzero().flatten()
        self._rows, self._counts = self._rows[rows], self._counts[rows]
        return rows

    def read(self) -> list[list[Found]]:
        """The finished hypotheses, best first."""
        if self._scores.isnan().any():
            raise CheckpointError("the model gives NaN: its weights are damaged, or --precision is too low for it")
        scores, order = self._scores.sort(dim=1, descending=True, stable=True)
        steps, last = self._steps.gather(1, order), self._last.gather(1, order)
        tokens = []
        for step in reversed(range(len(self._tokens))):
            tokens.append(self._tokens[step].gather(1, last))
            last = torch.where(steps > step, self._parents[step].gather(1, last), last)
        table = torch.stack(tokens[::-1], dim=2).tolist()
        return [
            [Found(ids[:length], score) for ids, length, score in zip(*sentence, strict=True) if score > -math.inf]
            for sentence in zip(table, steps.tolist(), scores.tolist(), strict=True)
        ]
