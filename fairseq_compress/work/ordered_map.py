"""An ordered map over a stream, on several processes."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from fairseq_compress.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK_ITEMS = 256  # sent to a process at once; sending costs about as much as one item
WAITING_CHUNKS = 4  # a process, so that memory does not grow with the stream

_function: Callable[[Any], Any]  # of a worker process


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int, chunk_items: int = CHUNK_ITEMS
) -> Iterator[tuple[Item, Result]]:
    """Yield each item and ``function(item)``, spread over ``processes``; with 1 computed in this process.

    The function is sent to each process once. The first exception, of the function or of ``items``, ends the iteration.
    """
    if processes < 1:
        raise ConfigError(f"--processes: must be at least 1, got {processes}")
    if processes == 1:
        yield from ((item, function(item)) for item in items)
        return
    # spawn: a forked child would share locks with threads that it does not have
    context = multiprocessing.get_context("spawn")
    remaining = iter(items)
    waiting: deque[tuple[list[Item], Future[list[Result]]]] = deque()
    with ProcessPoolExecutor(processes, context, _start, (function,)) as pool:
        try:
            while chunk := list(islice(remaining, chunk_items)):
                waiting.append((chunk, pool.submit(_call, chunk)))
                if len(waiting) >= WAITING_CHUNKS * processes:
                    yield from _pairs(*waiting.popleft())
            while waiting:
                yield from _pairs(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _pairs(chunk: list[Item], results: Future[list[Result]]) -> Iterator[tuple[Item, Result]]:
    return zip(chunk, results.result(), strict=True)


def _start(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A killed parent cannot tell its workers to stop: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(chunk: list[Any]) -> list[Any]:
    return [_function(item) for item in chunk]
