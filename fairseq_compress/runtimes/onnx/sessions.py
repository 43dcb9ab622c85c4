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

from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.system import default_threads

ENCODER, STEP, WEIGHTS = "encoder.onnx", "step.onnx", "weights.bin"
WORTH_THREADS = 1 << 24  # bytes of weights; a step of a smaller model is over before other threads have woken up


class Sessions:
    """The sessions of encoder and step by their number of threads.

    Args:
        threads: that may be used; None: the default.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self._folder = folder
        self.threads = threads or default_threads()
        """Of all batches together."""
        self.of_one_batch = self.threads if _is_large(folder) else 1
        self._opened: dict[int, tuple[Any, Any]] = {}
        self._lock = Lock()

    def open(self, threads: int) -> tuple[Any, Any]:
        """Those with a number of threads; opened at the first call."""
        with self._lock:
            if threads not in self._opened:
                with ThreadPoolExecutor(2) as pool:
                    paths = (self._folder / name for name in (ENCODER, STEP))
                    encoder, step = pool.map(lambda path: _session(path, threads, path.name == STEP), paths)
                self._opened[threads] = (encoder, step)
            return self._opened[threads]

    def begin(self) -> None:
        """Open them in the background; what fails is told by :meth:`open`."""
        ThreadPoolExecutor(1).submit(self.open, 1)


def begin(directory: ModelDirectory, threads: int | None) -> ModelDirectory:
    """The directory with its sessions; those of a small model, which every batch uses, are opened in the background."""
    sessions = Sessions(directory.path, threads)
    if sessions.of_one_batch == 1:
        sessions.begin()
    return replace(directory, loading=sessions)


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
