"""A model directory of CTranslate2 as a function of pieces."""

from typing import Any

import ctranslate2

from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.decoding.translation_lines import Hypothesis
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.system import default_threads

# Small batches of one thread each keep its products in the cache: with int8 twice the speed of large ones.
TOKENS_AT_ONCE = 512

_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, MemoryError)


class CTranslate2Model:
    """Beam search in CTranslate2.

    Args:
        directory: of the runtime ``ctranslate2``.
        options: of the search.
        nbest: hypotheses of each sentence.
        threads: workers of one thread each, which translate batches side by side; None:
            :func:`fairseq_compress.system.default_threads`.

    Raises:
        DataError: CTranslate2 cannot load it.
        ConfigError: it does not have an option of the search.
    """

    def __init__(
        self, directory: ModelDirectory, options: SearchOptions, nbest: int = 1, threads: int | None = None
    ) -> None:
        if options.unkpen != 0:
            raise ConfigError(f"--unkpen: must be 0 with CTranslate2, got {options.unkpen:g}")
        self._options, self._nbest = options, nbest
        self.longest: int = directory.metadata["positions"]["source"] - 1
        self._longest_target: int = directory.metadata["positions"]["target"] - 1
        most = directory.metadata["vocabulary"]["target_entries"] - 2
        if options.beam > most:
            raise ConfigError(f"--beam: must be at most {most} with this dictionary, got {options.beam}")
        directory.verify()  # before: some damaged models crash it
        self._path = directory.path
        workers = threads or default_threads()
        try:
            self._translator = ctranslate2.Translator(
                str(directory.path), device="cpu", inter_threads=workers, intra_threads=1
            )
        except _ERRORS as error:
            raise DataError(f"{directory.path}: CTranslate2 cannot load it: {_first_line(error)}") from None

    def translate(self, sentences: list[list[str]]) -> list[list[Hypothesis]]:
        """See :class:`fairseq_compress.decoding.translation_lines.PieceTranslator`."""
        options = self._options
        found: list[list[Hypothesis]] = [[] for _ in sentences]
        for length, places in self._by_greatest_length(sentences).items():
            try:
                results: list[Any] = self._translator.translate_batch(
                    [sentences[place] for place in places], beam_size=options.beam, num_hypotheses=self._nbest,
                    length_penalty=options.lenpen, max_decoding_length=length, min_decoding_length=options.min_len,
                    no_repeat_ngram_size=options.no_repeat_ngram_size, max_input_length=0, return_scores=True,
                    max_batch_size=TOKENS_AT_ONCE, batch_type="tokens",
                )  # fmt: skip
            except _ERRORS as error:
                raise DataError(f"{self._path}: CTranslate2 cannot translate with it: {_first_line(error)}") from None
            for place, result in zip(places, results, strict=True):
                pairs = zip(result.scores, result.hypotheses, strict=True)
                found[place] = [Hypothesis(score, pieces) for score, pieces in pairs]
        return found

    def _by_greatest_length(self, sentences: list[list[str]]) -> dict[int, list[int]]:
        """Places of the sentences, by the length that their translations may have."""
        groups: dict[int, list[int]] = {}
        for place, sentence in enumerate(sentences):
            length = min(self._options.greatest_length(len(sentence) + 1), self._longest_target)
            groups.setdefault(length, []).append(place)
        return groups


def _first_line(error: BaseException) -> str:
    return (str(error) or repr(error)).splitlines()[0]
