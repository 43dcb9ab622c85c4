"""A model directory of CTranslate2."""

from typing import Any

import ctranslate2

from fairseq_compress.decoding.hypothesis import Hypothesis
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.opened import OpenedModel, open_directory
from fairseq_compress.runtimes.options import RuntimeOptions
from fairseq_compress.system import default_threads

# Small batches of one thread each keep its products in the cache: with int8 twice the speed of large ones.
TOKENS_AT_ONCE = 512

_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, MemoryError)


def open_model(directory: ModelDirectory, options: RuntimeOptions) -> OpenedModel:
    return open_directory(directory, options, CTranslate2Model)


class CTranslate2Model:
    """Beam search in CTranslate2, by ``threads`` workers of one thread each, which translate batches in parallel."""

    def __init__(
        self, directory: ModelDirectory, options: SearchOptions, nbest: int = 1, threads: int | None = None
    ) -> None:
        metadata = directory.metadata
        if options.unkpen != 0:
            raise ConfigError(f"--unkpen: must be 0 with CTranslate2, got {options.unkpen:g}")
        options.check_beam(metadata["vocabulary"]["target_entries"])
        self._options, self._nbest, self._path = options, nbest, directory.path
        self.longest: int = metadata["positions"]["source"] - 1
        self._longest_target: int = metadata["positions"]["target"] - 1
        directory.verify()  # before: some damaged models crash it
        workers = threads or default_threads()
        try:
            self._translator = ctranslate2.Translator(
                str(self._path), device="cpu", inter_threads=workers, intra_threads=1
            )
        except _ERRORS as error:
            raise self._problem("load", error) from None

    def translate(self, sentences: list[list[str]]) -> list[list[Hypothesis[list[str]]]]:
        options = self._options
        groups: dict[int, list[int]] = {}  # indices of the sentences by the maximum length of their translations
        for place, sentence in enumerate(sentences):
            length = min(options.greatest_length(len(sentence) + 1), self._longest_target)
            groups.setdefault(length, []).append(place)
        found: list[list[Hypothesis[list[str]]]] = [[] for _ in sentences]
        for length, places in groups.items():
            try:
                results: list[Any] = self._translator.translate_batch(
                    [sentences[place] for place in places], beam_size=options.beam, num_hypotheses=self._nbest,
                    length_penalty=options.lenpen, max_decoding_length=length, min_decoding_length=options.min_len,
                    no_repeat_ngram_size=options.no_repeat_ngram_size, max_input_length=0, return_scores=True,
                    max_batch_size=TOKENS_AT_ONCE, batch_type="tokens",
                )  # fmt: skip
            except _ERRORS as error:
                raise self._problem("translate with", error) from None
            for place, result in zip(places, results, strict=True):
                found[place] = list(map(Hypothesis, result.scores, result.hypotheses))
        return found

    def _problem(self, what: str, error: BaseException) -> DataError:
        return DataError(f"{self._path}: CTranslate2 cannot {what} it: {(str(error) or repr(error)).splitlines()[0]}")
