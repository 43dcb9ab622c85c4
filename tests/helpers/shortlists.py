"""Random lexical shortlists, and a beam search in torch over their entries."""

import math

import numpy as np
import torch

from fairseq_compress.decoding.beam_search import beam_search
from fairseq_compress.decoding.shortlist import Lists
from fairseq_compress.decoding.shortlist_file import write_shortlist
from fairseq_compress.runtimes.torch.model import TorchModel
from fairseq_compress.runtimes.torch.steps import TorchSteps
from fairseq_compress.teachers.dictionaries import dictionary_sha256


def write_random_shortlist(path, dictionary, first=20, best=12, seed=1):
    """A shortlist of one dictionary for both sides; returns its lists."""
    draw, entries = np.random.default_rng(seed), len(dictionary)
    sizes = draw.integers(0, best + 1, entries)
    lists = [np.sort(draw.choice(entries, size, replace=False)) for size in sizes]
    always, offsets = np.sort(draw.choice(entries, first, replace=False)), np.concatenate([[0], sizes.cumsum()])
    found = Lists(always, offsets, np.concatenate(lists))
    sha256 = dictionary_sha256(dictionary)
    write_shortlist(
        path, found, first=first, best=best, links=1, source_entries=entries, target_entries=entries,
        source_dictionary=sha256, target_dictionary=sha256,
    )  # fmt: skip
    return found


class _Restricted(TorchSteps):
    """Steps whose log-probabilities are those among some entries."""

    def __init__(self, steps, entries):
        super().__init__(steps._states, steps._eos, steps._device)
        self._entries = torch.from_numpy(entries)

    def _lprobs(self, tokens):
        for lprobs in super()._lprobs(tokens):
            found = torch.full_like(lprobs, -math.inf)
            some = lprobs[:, :, self._entries]
            found[:, :, self._entries] = some - some.logsumexp(dim=2, keepdim=True)
            yield found


@torch.inference_mode()
def translate_among(loaded, sentence, entries, options):
    """Hypotheses of a sentence of ids with EOS, best first."""
    model = TorchModel(loaded, options, options.beam)
    symbols = model._dictionaries.symbols
    lengths = np.array([len(sentence)])
    longest = np.minimum(model.greatest_lengths(lengths), model._longest_target)
    steps = model.start(np.array([sentence]), lengths, int(longest[0]) + 1, 1)
    return beam_search(_Restricted(steps, entries), longest, options, symbols)[0]
