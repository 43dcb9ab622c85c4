"""Progress of long work: a bar on a terminal, else a line every half minute."""

import os
import sys
import time
from typing import IO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0


class WorkProgress:
    """Counts items and shows their rate and the time left on the standard error, or on ``stream``.

    Args:
        total: all items of this process, with the ``resumed`` ones of an earlier start, which do not count in the rate.
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
            self._print(f"resumed at {resumed} of {total} {unit}")

    def add(self, items: int) -> None:
        """Count finished items."""
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
        rate = new / max(now - self._start, 1e-9)
        text = f"{self.done} of {self.total} {self.unit}, {rate:.1f} {self.unit}/s"
        if new and self.done < self.total:
            text += f", {_clock((self.total - self.done) / rate)} left"
        return text

    def _print(self, text: str) -> None:
        print(f"{self.description}: {text}", file=self._stream, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
