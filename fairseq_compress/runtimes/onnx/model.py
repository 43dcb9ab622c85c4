"""A model directory of ONNX Runtime as a function of pieces."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states

from fairseq_compress.decoding.beam_search import Floats, Found, Symbols, beam_search
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.decoding.translation_lines import Hypothesis
from fairseq_compress.decoding.vocabulary import read_symbols
from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.runtimes.model_directory import METADATA, ModelDirectory, wrong_type
from fairseq_compress.runtimes.onnx.steps import OnnxSteps, Shape
from fairseq_compress.system import default_threads
from fairseq_compress.work.windows import cut_batches

ENCODER, STEP, WEIGHTS = "encoder.onnx", "step.onnx", "weights.bin"
TOKENS_AT_ONCE = (
    1024  # source tokens of a batch, for a beam of one; more pay nothing, and leave workers idle at the end
)
WORTH_THREADS = 1 << 24  # bytes of weights; a step of a smaller model is over before other threads have woken up
_ERRORS = (RuntimeError, *(getattr(states, name) for name in ("Fail", "InvalidArgument", "RuntimeException")))
_NEEDED = {
    **dict.fromkeys(("onnx.positions.encoder", "onnx.positions.decoder"), str),
} | {
    f"onnx.{name}": int
    for name in (
        *("symbols.pad", "symbols.eos", "symbols.unk", "widths.encoder", "widths.decoder"),
        *("decoder.layers", "decoder.heads", "decoder.head_width", "decoder.entries"),
    )
}


class OnnxModel:
    """Beam search over the graphs of :mod:`fairseq_compress.export.onnx_transformer`.

    Args:
        directory: of the runtime ``onnx``.
        options: of the search.
        nbest: hypotheses of each sentence.
        threads: batches are translated side by side, by one thread each; a single batch by all of them if the model is
            large, else by one; None: :func:`fairseq_compress.system.default_threads`.

    Raises:
        DataError: ONNX Runtime cannot load it.
        ConfigError: the beam is too large for the dictionary.
    """

    def __init__(
        self, directory: ModelDirectory, options: SearchOptions, nbest: int = 1, threads: int | None = None
    ) -> None:
        metadata = directory.metadata
        if problem := wrong_type(metadata, _NEEDED):
            raise DataError(f"{directory.path / METADATA}: is damaged: {problem}")
        self._options, self._nbest, self._path = options, nbest, directory.path
        self._threads = threads or default_threads()
        self.longest: int = metadata["positions"]["source"] - 1
        self._longest_target: int = metadata["positions"]["target"] - 1
        onnx = metadata["onnx"]
        self._symbols, self._shape = Symbols(**onnx["symbols"]), Shape(**onnx["decoder"])
        self._source, self._target = (read_symbols(directory.path, side) for side in ("source", "target"))
        self._index = {symbol: index for index, symbol in enumerate(self._source)}
        most = len(self._target) - 2
        if options.beam > most:
            raise ConfigError(f"--beam: must be at most {most} with this dictionary, got {options.beam}")
        self._positions = {
            side: _Positions(directory.path, side, onnx["positions"][side], onnx["widths"][side])
            for side in ("encoder", "decoder")
        }
        large = (directory.path / WEIGHTS).stat().st_size >= WORTH_THREADS
        self._threads_of_one = self._threads if large else 1
        self._sessions: dict[int, tuple[Any, Any]] = {}
        self._background = ThreadPoolExecutor(1)  # the checksums, while the first sentences are translated
        self._verified = self._background.submit(directory.verify)

    def translate(self, sentences: list[list[str]]) -> list[list[Hypothesis]]:
        """See :class:`fairseq_compress.decoding.translation_lines.PieceTranslator`."""
        unknown, eos = self._symbols.unk, self._symbols.eos
        ids = [[*(self._index.get(piece, unknown) for piece in sentence), eos] for sentence in sentences]
        batches = cut_batches([len(sentence) for sentence in ids], self._tokens_at_once())
        found: list[list[Hypothesis]] = [[] for _ in sentences]
        if len(batches) == 1:
            results = [self._search([ids[place] for place in batches[0]], self._open(self._threads_of_one))]
        else:
            sessions = self._open(1)
            with ThreadPoolExecutor(self._threads) as pool:
                results = list(pool.map(lambda batch: self._search([ids[place] for place in batch], sessions), batches))
        for places, result in zip(batches, results, strict=True):
            for place, best in zip(places, result, strict=True):
                found[place] = [
                    Hypothesis(score, [self._target[index] for index in tokens])
                    for score, tokens in best[: self._nbest]
                ]
        self._verified.result()
        return found

    def _tokens_at_once(self) -> int:
        return max(64, TOKENS_AT_ONCE // self._options.beam)

    def _open(self, threads: int) -> tuple[Any, Any]:
        """The sessions of encoder and step, which compute with so many threads."""
        if threads not in self._sessions:
            try:
                with ThreadPoolExecutor(2) as pool:
                    opened = list(
                        pool.map(lambda name: _session(self._path / name, threads, name == STEP), (ENCODER, STEP))
                    )
            except Exception as error:  # ONNX Runtime has a dozen classes of its own
                self._verified.result()
                raise DataError(f"{self._path}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from None
            self._sessions[threads] = (opened[0], opened[1])
        return self._sessions[threads]

    def _search(self, sentences: list[list[int]], sessions: tuple[Any, Any]) -> list[list[Found]]:
        try:
            return self._decode(sentences, sessions)
        except _ERRORS as error:
            self._verified.result()
            raise DataError(
                f"{self._path}: ONNX Runtime cannot translate with it: {str(error).splitlines()[0]}"
            ) from None

    def _decode(self, sentences: list[list[int]], sessions: tuple[Any, Any]) -> list[list[Found]]:
        lengths = np.array([len(sentence) for sentence in sentences])
        width = int(lengths.max())
        tokens = np.full((len(sentences), width), self._symbols.pad)
        for row, sentence in enumerate(sentences):
            tokens[row, : len(sentence)] = sentence
        mask = (np.arange(width) < lengths[:, None]).astype(np.int32)
        positions = self._positions["encoder"].first(width)
        source = sessions[0].run(None, {"tokens": tokens, "positions": positions[None], "mask": mask})
        longest = np.array(
            [min(self._options.greatest_length(int(length)), self._longest_target) for length in lengths]
        )
        rows = self._positions["decoder"].first(int(longest.max()) + 1)
        steps = OnnxSteps(sessions[1], self._shape, source, mask, rows)
        return beam_search(steps, longest, self._options, self._symbols, len(self._target))


def _session(path: Path, threads: int, spinning: bool) -> Any:
    """A session. Only one may let its threads spin: those of another would take the cores from it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class _Positions:
    """Rows that stand for positions: ``learned`` ones, ``sinusoidal`` ones (arXiv:1706.03762), or ``none``: zeros."""

    def __init__(self, folder: Path, side: str, kind: str, width: int) -> None:
        self._kind, self._width = kind, width
        self._rows: Floats = np.load(folder / f"{side}_positions.npy") if kind == "learned" else self._make(1)

    def first(self, count: int) -> Floats:
        """Those of the first tokens."""
        if count > len(self._rows):  # learned ones are there for all lengths that the model takes
            self._rows = self._make(2 * count)
        return self._rows[:count]

    def _make(self, count: int) -> Floats:
        return (
            sinusoids(count, self._width) if self._kind == "sinusoidal" else np.zeros((count, self._width), np.float32)
        )


def sinusoids(count: int, width: int) -> Floats:
    """fairseq's: sines in the first half, cosines in the second; the first token is at 2, behind padding's 1."""
    half = width // 2
    steps = np.exp(np.arange(half, dtype=np.float32) * np.float32(-np.log(10000) / max(half - 1, 1)))
    angles = np.arange(2, count + 2, dtype=np.float32)[:, None] * steps
    table = np.zeros((count, width), np.float32)
    table[:, :half], table[:, half : 2 * half] = np.sin(angles), np.cos(angles)
    return table
