"""A checkpoint as a function of pieces, through the beam search of ``fairseq-compress nbest``."""

from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.decoding.translation_lines import Hypothesis
from fairseq_compress.runtimes.torch.beam_search import MAX_TOKENS, BeamSearch
from fairseq_compress.teachers.loading import LoadedModels
from fairseq_compress.work.windows import cut_batches


class CheckpointModel:
    """Beam search with a model or an ensemble in torch.

    Args:
        models: of :func:`fairseq_compress.teachers.loading.load_models`.
        options: of the search.
        nbest: hypotheses of each sentence.
    """

    def __init__(self, models: LoadedModels, options: SearchOptions, nbest: int = 1) -> None:
        self._models, self._nbest = models, nbest
        self._search = BeamSearch(models, options)
        self._max_tokens = MAX_TOKENS[self._search.device.type]
        self.longest = models.max_source_positions - 1

    def translate(self, sentences: list[list[str]]) -> list[list[Hypothesis]]:
        """See :class:`fairseq_compress.decoding.translation_lines.PieceTranslator`."""
        source, target = self._models.source, self._models.target
        ids = [[*(source.index(piece) for piece in sentence), source.eos()] for sentence in sentences]
        found: list[list[Hypothesis]] = [[] for _ in sentences]
        for places in cut_batches([len(sentence) for sentence in ids], self._max_tokens):
            for place, best in zip(places, self._search.search([ids[place] for place in places]), strict=True):
                found[place] = [
                    Hypothesis(score, [target.symbols[index] for index in tokens])
                    for tokens, score in best[: self._nbest]
                ]
        return found
