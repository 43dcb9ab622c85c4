"""A checkpoint, or an ensemble of several, in torch."""

import os

import fairseq.tasks.translation  # noqa: F401 - whole, before our modules import parts
import numpy as np
import torch

from fairseq_compress.decoding.beam_search import Ints, Symbols
from fairseq_compress.decoding.search_model import MAX_TOKENS, Dictionaries, Found, SearchModel, Sentences
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.runtimes.opened import OpenedModel
from fairseq_compress.runtimes.options import RuntimeOptions
from fairseq_compress.runtimes.torch.step_decoders import step_decoder
from fairseq_compress.runtimes.torch.steps import TorchSteps
from fairseq_compress.teachers.loading import LoadedModels, load_models, pick_device


def open_model(path: str | os.PathLike[str], options: RuntimeOptions) -> OpenedModel:
    name = os.fspath(path)
    if missing := [part for part in name.split(":") if part and not os.path.exists(part)]:
        raise CheckpointError(f"checkpoint {missing[0]}: no such file, and no directory of fairseq-compress export")
    if options.text and options.segmentation is None:
        raise ConfigError(f"--sentencepiece-model: must be given with the checkpoint {name}, or another --segmentation")
    search = options.search_options()
    device = pick_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    source, target = options.languages
    models = load_models(
        name, options.data, source_lang=source, target_lang=target, precision=options.precision, device=device
    )
    segmenter = models.open_segmenter(options.segmentation) if options.segmentation else None
    translator = TorchModel(models, search, options.nbest or search.beam, options.max_tokens)
    languages = {"source": models.source_lang, "target": models.target_lang}
    return OpenedModel(
        translator, search, (models.source_lang, models.target_lang), segmenter, models.source.indices,
        {"runtime": "torch", "languages": languages}, models.facts, models.precision, device.type,
    )  # fmt: skip


class TorchModel(SearchModel):
    """Beam search with an ensemble, whose probabilities are averaged."""

    def __init__(
        self, loaded: LoadedModels, options: SearchOptions, nbest: int = 1, max_tokens: int | None = None
    ) -> None:
        self.loaded, target = loaded, loaded.target
        self._device = next(loaded.models[0].parameters()).device
        symbols = Symbols(target.pad(), target.eos(), target.unk())
        super().__init__(
            Dictionaries(loaded.source.indices, target.symbols, symbols),
            (loaded.max_source_positions, loaded.max_target_positions), options, nbest,
            MAX_TOKENS[self._device.type] if max_tokens is None else max_tokens,
        )  # fmt: skip
        self._decoders = [step_decoder(model, loaded.precision) for model in loaded.models]

    @torch.inference_mode()
    def search(self, sentences: Sentences, threads: int = 1) -> Found:
        return super().search(sentences, threads)

    def greatest_lengths(self, lengths: Ints) -> Ints:
        """As in fairseq, those of the longest source of the batch."""
        return np.full_like(lengths, self.options.greatest_length(int(lengths.max())))

    def start(self, tokens: Ints, lengths: Ints, steps: int, threads: int) -> TorchSteps:
        source, sizes = (torch.from_numpy(part).to(self._device) for part in (tokens, lengths))
        states = [decoder.start(source, sizes) for decoder in self._decoders]
        return TorchSteps(states, self.loaded.target.eos(), self._device)
