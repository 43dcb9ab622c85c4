"""Progress of long work: a bar on a terminal, else a line every half minute (for log files and batch systems)."""

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import IO, Any

from tqdm import tqdm

from fairseq_compress.work.sharded import ShardedWork
from fairseq_compress.work.windows import Batch

SECONDS_BETWEEN_LINES = 30.0


class WorkProgress:
    """Counts items and tells their number a second and the time left, on the standard error.

    Args:
        total: all items of this process, those of an earlier start included.
        description: what goes on, such as ``nbest 0/2``.
        resumed: items that an earlier start did; they count as done, not as speed.
        unit: what the items are.
        stream: instead of the standard error.
    """

    def __init__(
        self, total: int, description: str, *, resumed: int = 0, unit: str = "sentences", stream: IO[str] | None = None
    ) -> None:
        self.total, self.description, self.unit = total, description, unit
        self.resumed = self.done = resumed
        self._stream = stream or sys.stderr
        self._start = self._last = time.monotonic()
        self._bar = None
        if self._stream.isatty():
            position = int(os.environ.get("LOCAL_RANK", "0"))  # processes of one terminal: a line each
            self._bar = tqdm(
                total=total, initial=resumed, desc=description, unit=f" {unit}", file=self._stream, position=position
            )
        elif resumed:
            self._print(f"{resumed} of {total} {unit} are there already")

    def add(self, items: int) -> None:
        """Count items that were just done."""
        self.done += items
        if self._bar is not None:
            self._bar.update(items)
            return
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            self._print(self._state(now))

    def close(self) -> None:
        """End the bar, or print the last line."""
        if self._bar is not None:
            self._bar.close()
            return
        self._print(self._state(time.monotonic()))

    def _state(self, now: float) -> str:
        new = self.done - self.resumed
        speed = new / max(now - self._start, 1e-9)
        text = f"{self.done} of {self.total} {self.unit}, {speed:.1f} {self.unit}/s"
        if new and self.done < self.total:
            text += f", {_clock((self.total - self.done) / speed)} left"
        return text

    def _print(self, text: str) -> None:
        print(f"{self.description}: {text}", file=self._stream, flush=True)


def write_units(
    work: ShardedWork,
    batches: Iterable[Batch[Any]],
    payload: Callable[[Batch[Any]], bytes],
    own: int,
    verb: str,
    unit: str = "sentences",
) -> None:
    """Make what this process's batches become and log it, with progress; what an earlier start made is not made again.

    Args:
        batches: of all processes.
        own: items in the batches of this one.
        verb, unit: for the progress, what is done and what the items are.
    """
    progress: WorkProgress | None = None
    resumed = units = 0
    for batch in batches:
        units += 1
        if not work.mine(batch.unit):
            continue
        if work.has(batch.unit):
            resumed += len(batch.items)
            continue
        if progress is None:
            progress = WorkProgress(own, f"{verb} {work.rank}/{work.world_size}", resumed=resumed, unit=unit)
        work.write(batch.unit, payload(batch))
        progress.add(len(batch.items))
    if progress is not None:
        progress.close()
    work.finish(units)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
