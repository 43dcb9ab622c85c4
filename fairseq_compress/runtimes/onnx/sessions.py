"""Sessions of the graphs of a model directory, opened in the background where that is worth it.

A session takes as long as the modules that its model needs, and leaves Python's lock to them meanwhile. So this module
imports none of them, and :func:`begin` is called first.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import onnxruntime

from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.options import RuntimeOptions
from fairseq_compress.system import default_threads

ENCODER, STEP, WEIGHTS = "encoder.onnx", "step.onnx", "weights.bin"
GREEDY, BEAM = "greedy.onnx", "beam.onnx"  # a whole search
WORTH_THREADS = 1 << 24  # bytes of weights; a step of a smaller model is over before other threads have woken up


class Sessions:
    """The sessions of the graphs by their number of threads.

    Args:
        threads: that may be used; None: the default.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self._folder = folder
        self.threads = threads or default_threads()
        """Of all batches together."""
        self.of_one_batch = self.threads if _is_large(folder) else 1
        self._opened: dict[tuple[str, int], Any] = {}
        self._lock = Lock()

    def open(self, threads: int, *names: str) -> list[Any]:
        """Those of the named graphs with a number of threads; opened at the first call."""
        with self._lock:
            if missing := [name for name in names if (name, threads) not in self._opened]:
                with ThreadPoolExecutor(len(missing)) as pool:
                    made = pool.map(lambda name: _session(self._folder / name, threads, name != ENCODER), missing)
                    self._opened |= {(name, threads): session for name, session in zip(missing, made, strict=True)}
            return [self._opened[name, threads] for name in names]

    def begin(self, *names: str) -> None:
        """Open them in the background; what fails is told by :meth:`open`."""
        ThreadPoolExecutor(1).submit(self.open, 1, *names)


def begin(directory: ModelDirectory, options: RuntimeOptions) -> ModelDirectory:
    """The directory with its sessions; those of a small model, which every batch uses, are opened in the background."""
    sessions = Sessions(directory.path, options.threads)
    if sessions.of_one_batch == 1:
        search = options.search_options(directory.metadata["search"])
        sessions.begin(ENCODER, decoder(directory.path, search))
    return replace(directory, loading=sessions)


def decoder(folder: Path, options: SearchOptions) -> str:
    """The graph that decodes: a whole search if one is there and does what the options want, else a step.

    Directories of older versions have steps only.
    """
    search = GREEDY if options.beam == 1 else BEAM
    return search if options.no_repeat_ngram_size == 0 and (folder / search).is_file() else STEP


def _is_large(folder: Path) -> bool:
    return (folder / WEIGHTS).stat().st_size >= WORTH_THREADS


def _session(path: Path, threads: int, spinning: bool) -> Any:
    """A session; only one may let its threads spin, as spinning threads take the cores from the other."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
