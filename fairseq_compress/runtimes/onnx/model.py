"""A model directory of ONNX Runtime."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.capi import onnxruntime_pybind11_state as states

from fairseq_compress.decoding.beam_search import Floats, Ints, Symbols, beam_search
from fairseq_compress.decoding.search_model import Dictionaries, Found, SearchModel, Sentences
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.decoding.shortlist import LEAST, Shortlist
from fairseq_compress.decoding.sinusoids import sinusoids
from fairseq_compress.decoding.vocabulary import read_symbols
from fairseq_compress.errors import DataError
from fairseq_compress.options import option
from fairseq_compress.runtimes.model_directory import ModelDirectory, read_metadata
from fairseq_compress.runtimes.onnx.chosen import Entries
from fairseq_compress.runtimes.onnx.greedy import greedy_search
from fairseq_compress.runtimes.onnx.loop import SearchLoop, faster
from fairseq_compress.runtimes.onnx.loop_steps import LoopSteps
from fairseq_compress.runtimes.onnx.sessions import ENCODER, GREEDY, STEP, Sessions, decoder
from fairseq_compress.runtimes.onnx.steps import Encoded, OnnxSteps, Shape
from fairseq_compress.runtimes.opened import OpenedModel, open_directory
from fairseq_compress.runtimes.options import RuntimeOptions

# Source tokens of a batch, for a beam of one; with more it is not faster, and workers are idle at the end.
TOKENS_AT_ONCE = 1024
# Keys of the source are padded to a multiple: the product of one query with values adds the last ones of another number
# in another order, and a sentence would depend on the longest of its batch, in the last bit.
SOURCE_STEP = 4
SHORTLIST = "shortlist.bin"
SPECIAL = 4  # entries that may be forbidden besides those of an n-gram
_ERRORS = (RuntimeError, *(getattr(states, name) for name in ("Fail", "InvalidArgument", "RuntimeException")))


SINUSOIDAL = {"sinusoidal": 2, "sinusoidal_from_0": 0}
"""Kind of positions -> number of the first one."""
_KINDS = ("learned", *SINUSOIDAL, "none")


@dataclass(frozen=True)
class _Positions:
    encoder: str = option(choices=_KINDS)
    decoder: str = option(choices=_KINDS)


@dataclass(frozen=True)
class _Widths:
    encoder: int
    decoder: int


@dataclass(frozen=True)
class _LanguageTokens:
    """Tokens that the runtime adds to every sentence (:mod:`fairseq_compress.models.language_tokens`)."""

    source: tuple[int, ...] = option((), range="[1, inf)")
    target: tuple[int, ...] = option((), range="[1, inf)")


@dataclass(frozen=True)
class OnnxMetadata:
    """The part of ``metadata.json`` for this runtime."""

    symbols: Symbols
    decoder: Shape
    positions: _Positions
    widths: _Widths
    sparse_in_file: dict[str, int] = field(default_factory=dict)
    """Number of matrices with many zeros, their bytes in the file, and those of the dense ones in memory."""
    language_tokens: _LanguageTokens = _LanguageTokens()  # older versions refuse directories that have the key
    chosen: tuple[str, ...] = ()
    """With a shortlist, what the graph of the encoder returns besides ``source``, in this order."""


def open_model(directory: ModelDirectory, options: RuntimeOptions) -> OpenedModel:
    return open_directory(directory, options, OnnxModel)


class OnnxModel(SearchModel):
    """Beam search over the graphs of :mod:`fairseq_compress.export.onnx`.

    Batches are translated in parallel, by one thread each; a single batch by all ``threads`` if the model is large.
    """

    def __init__(
        self, directory: ModelDirectory, options: SearchOptions, nbest: int = 1, threads: int | None = None
    ) -> None:
        onnx = read_metadata(OnnxMetadata, directory.metadata.get("onnx"), directory.path, "onnx")
        positions = directory.metadata["positions"]
        source, target = (read_symbols(directory.path, side) for side in ("source", "target"))
        indices = {symbol: index for index, symbol in enumerate(source)}
        super().__init__(
            Dictionaries(indices, target, onnx.symbols), (positions["source"], positions["target"]),
            options, nbest, max(64, TOKENS_AT_ONCE // options.beam),
        )  # fmt: skip
        self._path, self._shape, self._entries = directory.path, onnx.decoder, len(target)
        self._language_tokens = onnx.language_tokens
        self._chosen, self._symbols = onnx.chosen, onnx.symbols
        self.shortlist = _shortlist(directory, onnx, (len(indices), len(target))) if onnx.chosen else None
        """None: all entries are computed."""
        self._least = max(LEAST, 2 * options.beam + SPECIAL)
        self._positions = {
            side: _PositionRows(directory.path, side, getattr(onnx.positions, side), getattr(onnx.widths, side))
            for side in ("encoder", "decoder")
        }
        self._sessions: Sessions = directory.loading or Sessions(directory.path, threads)
        # A whole search starts with EOS alone.
        self._decoder = STEP if onnx.language_tokens.target else decoder(directory.path, options)
        self._background = ThreadPoolExecutor(1)  # the checksums, while the first sentences are translated
        self._verified = self._background.submit(directory.verify)

    def choices(self, sentence: list[str]) -> list[str]:
        """The subwords among which a translation is chosen."""
        assert self.shortlist is not None
        source, target, symbols = self._dictionaries
        ids = [*(source.get(piece, symbols.unk) for piece in sentence), symbols.eos]
        return [target[entry] for entry in self.shortlist.of(ids, self._least).tolist()]

    def without_shortlist(self) -> "OnnxModel":
        """The same model, which computes all entries."""
        found = copy(self)
        found.shortlist = None
        return found

    def search_all(self, batches: Sequence[Sentences]) -> list[Found]:
        if len(batches) == 1:
            found = [self.search(batches[0], self._sessions.of_one_batch)]
        else:
            self._open(1, ENCODER)
            with ThreadPoolExecutor(self._sessions.threads) as pool:
                found = list(pool.map(self.search, batches))
        self._verified.result()
        return found

    def search(self, sentences: Sentences, threads: int = 1) -> Found:
        try:
            return super().search(sentences, threads)
        except _ERRORS as error:
            raise self._problem("translate with", error) from None

    def decode(self, tokens: Ints, lengths: Ints, longest: Ints, threads: int) -> Found:
        if self._decoder == STEP or not faster(self._shape, len(tokens) * self.options.beam):
            return super().decode(tokens, lengths, longest, threads)
        source = self._encode(tokens, lengths, int(longest.max()) + 1, threads)
        (session,) = self._open(threads, self._decoder)
        options, symbols, outputs = self.options, self._dictionaries.symbols, self._shape.entries
        loop = SearchLoop(session, self._shape, source, options.beam, longest, symbols.eos)
        if self._decoder == GREEDY:
            return greedy_search(loop, options, symbols, outputs)
        steps = LoopSteps(loop, options.beam, options.min_len, self._entries, outputs)
        return beam_search(steps, longest, options, symbols)

    def start(self, tokens: Ints, lengths: Ints, steps: int, threads: int) -> OnnxSteps:
        source = self._encode(tokens, lengths, steps + len(self._language_tokens.target), threads)
        (session,) = self._open(threads, STEP)
        return OnnxSteps(session, self._shape, self._entries, source, self._language_tokens.target)

    def _encode(self, tokens: Ints, lengths: Ints, steps: int, threads: int) -> Encoded:
        """The sources for at most ``steps`` decoding steps."""
        (encoder,) = self._open(threads, ENCODER)
        if before := self._language_tokens.source:
            tokens = np.concatenate([np.tile(np.array(before, np.int64), (len(tokens), 1)), tokens], axis=1)
            lengths = lengths + len(before)
        length = tokens.shape[1]
        more = -length % SOURCE_STEP
        mask = (np.arange(length + more) < lengths[:, None]).astype(np.int32)
        positions = self._positions["encoder"].first(length)
        inputs = {"tokens": tokens, "positions": positions[None], "mask": mask[:, :length]}
        chosen = self._entries_of(tokens, lengths) if self._chosen else None
        source = encoder.run(None, inputs if chosen is None else inputs | {"chosen": chosen.union})
        if chosen is not None:
            count = len(source) - len(self._chosen)
            chosen.set_rows(dict(zip(self._chosen, source[count:], strict=True)))
            source = source[:count]
        if more:
            source = [_padded(part, more) for part in source]
        layers = dict(zip(self._shape.sources(), source, strict=True))
        return Encoded(layers, mask, self._positions["decoder"].first(steps), chosen)

    def _entries_of(self, tokens: Ints, lengths: Ints) -> Entries:
        """The shortlists of a batch, large enough for the beam; all entries without one."""
        every = np.arange(self._entries)
        lists = [
            every if self.shortlist is None else self.shortlist.of(row[:length], self._least)
            for row, length in zip(tokens, lengths.tolist(), strict=True)
        ]
        return Entries(lists, self._entries, self._symbols.pad)

    def _open(self, threads: int, *names: str) -> list[Any]:
        """The sessions of the named graphs with a number of threads."""
        try:
            return self._sessions.open(threads, *names)
        except Exception as error:  # ONNX Runtime has a dozen exception classes
            raise self._problem("load", error) from None

    def _problem(self, what: str, error: Exception) -> DataError:
        """The error to raise; that of an altered file takes precedence."""
        self._verified.result()
        return DataError(f"{self._path}: ONNX Runtime cannot {what} it: {str(error).splitlines()[0]}")


def _shortlist(directory: ModelDirectory, onnx: OnnxMetadata, sizes: tuple[int, int]) -> Shortlist:
    from fairseq_compress.decoding.shortlist_file import read_shortlist  # its imports take long

    file = read_shortlist(directory.path / SHORTLIST)
    file.check_dictionaries(directory.metadata["vocabulary"], sizes)
    return file.open(max(onnx.symbols.pad, onnx.symbols.eos, onnx.symbols.unk))


def _padded(source: Floats, more: int) -> Floats:
    """Keys and values with ``more`` tokens behind them; ``numpy.pad`` takes five times as long."""
    *outer, tokens, width = source.shape
    padded = np.zeros((*outer, tokens + more, width), np.float32)
    padded[..., :tokens, :] = source
    return padded


class _PositionRows:
    """Vectors of the positions: ``learned`` ones, sinusoidal ones (arXiv:1706.03762), or ``none``: zeros."""

    def __init__(self, folder: Path, side: str, kind: str, width: int) -> None:
        self._kind, self._width = kind, width
        self._rows: Floats = np.load(folder / f"{side}_positions.npy") if kind == "learned" else self._make(1)

    def first(self, count: int) -> Floats:
        if count > len(self._rows):  # learned ones are there for all lengths that the model takes
            self._rows = self._make(2 * count)
        return self._rows[:count]

    def _make(self, count: int) -> Floats:
        shape = (count, self._width)
        return sinusoids(*shape, SINUSOIDAL[self._kind]) if self._kind in SINUSOIDAL else np.zeros(shape, np.float32)
