"""Lines as sentencepiece's trainer takes them; others it leaves out silently."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# sentencepiece leaves out longer lines (its own default, 4192 bytes, is under 250 long words). A word may not have more
# than 65,535 characters, so the limit stays and lines are cut.
MAX_LINE_BYTES = 1 << 16
RESERVED = "\u2585"  # stands for characters without a piece inside the trainer, which leaves out lines that have it


@dataclass
class LineCounts:
    """What was done to the lines of a text."""

    read: int = 0
    empty: int = 0  # nothing to train on
    cut: int = 0  # over MAX_LINE_BYTES, trained on in parts
    reserved: int = 0  # trained on without U+2585

    def summary(self) -> str:
        """One line for people, empty when every line was trained on as it is."""
        kinds = {
            "empty (left out)": self.empty,
            f"longer than {MAX_LINE_BYTES:,} bytes (cut into parts)": self.cut,
            "with U+2585, which sentencepiece reserves (trained on without it)": self.reserved,
        }
        told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
        return f"{self.read:,} lines read, {told}" if told else ""


def training_lines(lines: Iterable[str], counts: LineCounts) -> Iterator[str]:
    """Yield what sentencepiece's trainer counts of the lines.

    Words are counted without what is around them, so a line that is cut at spaces counts as if it were whole.
    """
    for line in lines:
        counts.read += 1
        if RESERVED in line:
            counts.reserved += 1
            line = line.replace(RESERVED, " ")
        parts = [line] if 4 * len(line) <= MAX_LINE_BYTES else list(cut_line(line, MAX_LINE_BYTES))
        counts.cut += len(parts) > 1
        counts.empty += not line.strip()
        yield from parts


def cut_line(line: str, limit: int) -> Iterator[str]:
    """Parts of at most ``limit`` bytes in UTF-8: cut at the last space that fits, or behind the last character."""
    raw = line.encode()
    while len(raw) > limit:
        place = raw.rfind(b" ", 0, limit + 1)
        if place <= 0:
            place = limit
            while raw[place] & 0xC0 == 0x80:  # inside a character
                place -= 1
        yield raw[:place].decode()
        raw = raw[place:].removeprefix(b" ")
    yield raw.decode()
