"""Subwords to subwords by beam search, in batches of similar length, for every runtime with our search."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from fairseq_compress.decoding.beam_search import Ints, Steps, Symbols, beam_search
from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.work.windows import cut_batches

# Source tokens of a batch. On a CPU at width 256, all of 1,000 to 4,000 are within 5%, and 500 is 10% slower.
MAX_TOKENS = {"cpu": 2000, "cuda": 16_000}
Sentences = Sequence[Sequence[int]]  # token ids with EOS
Found = list[list[Hypothesis[list[int]]]]  # of each sentence, best first


class SubwordTranslator(Protocol):
    """A model as a function of subwords."""

    longest: int  # maximum source length in subwords, EOS not counted

    def translate(self, sentences: list[list[str]]) -> list[list[Hypothesis[list[str]]]]:
        """The hypotheses of each nonempty sentence, best first."""


class Dictionaries(NamedTuple):
    """The entries of both sides of a model."""

    source: Mapping[str, int]
    target: Sequence[str]
    symbols: Symbols


class SearchModel(ABC):
    """A model that decodes by :func:`beam_search`.

    Args:
        positions: maximum lengths of source and target in tokens, EOS included.
        nbest: hypotheses of each sentence.
        max_tokens: source tokens of a batch, padding counted.
    """

    def __init__(
        self, dictionaries: Dictionaries, positions: tuple[int, int], options: SearchOptions, nbest: int,
        max_tokens: int,
    ) -> None:  # fmt: skip
        options.check_beam(len(dictionaries.target))
        self.options, self._dictionaries, self._nbest, self._max_tokens = options, dictionaries, nbest, max_tokens
        self.longest, self._longest_target = (position - 1 for position in positions)

    def translate(self, sentences: list[list[str]]) -> list[list[Hypothesis[list[str]]]]:
        source, target, symbols = self._dictionaries
        ids = [[*(source.get(piece, symbols.unk) for piece in sentence), symbols.eos] for sentence in sentences]
        batches = cut_batches([len(sentence) for sentence in ids], self._max_tokens)
        found: list[list[Hypothesis[list[str]]]] = [[] for _ in sentences]
        results = self.search_all([[ids[place] for place in places] for places in batches])
        for places, result in zip(batches, results, strict=True):
            for place, best in zip(places, result, strict=True):
                found[place] = [
                    Hypothesis(score, [target[index] for index in tokens]) for score, tokens in best[: self._nbest]
                ]
        return found

    def search_all(self, batches: Sequence[Sentences]) -> Iterable[Found]:
        """:meth:`search` for each batch."""
        return map(self.search, batches)

    def search(self, sentences: Sentences, threads: int = 1) -> Found:
        """The hypotheses of a batch, best first; ``threads`` of a step, where each batch has its own."""
        pad = self._dictionaries.symbols.pad
        lengths = np.array([len(sentence) for sentence in sentences])
        tokens = np.full((len(sentences), lengths.max()), pad)
        for row, sentence in enumerate(sentences):
            tokens[row, : len(sentence)] = sentence
        longest = np.minimum(self.greatest_lengths(lengths), self._longest_target)
        return self.decode(tokens, lengths, longest, threads)

    def decode(self, tokens: Ints, lengths: Ints, longest: Ints, threads: int) -> Found:
        """The hypotheses of sources ``(B, S)``, padded on the right, of at most ``longest`` tokens."""
        steps = self.start(tokens, lengths, int(longest.max()) + 1, threads)
        return beam_search(steps, longest, self.options, self._dictionaries.symbols)

    def greatest_lengths(self, lengths: Ints) -> Ints:
        """Maximum lengths of translations; EOS counts in the source alone."""
        return np.array([self.options.greatest_length(length) for length in lengths.tolist()])

    @abstractmethod
    def start(self, tokens: Ints, lengths: Ints, steps: int, threads: int) -> Steps:
        """Encode the sources ``(B, S)``, padded on the right, for at most ``steps`` decoding steps."""
