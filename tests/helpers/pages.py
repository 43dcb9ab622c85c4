"""The pages of the documentation, in parts: blocks of code with their marks, links, anchors."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "data/README.md")
REASONS = ("needs a cluster", "needs a GPU", "needs a download", "installs packages", "takes long")
LANGUAGES = ("bash", "sh", "yaml", "json", "python", "text")
FENCE = re.compile(r"^( *)```(\S*)\s*$")
MARK = re.compile(r"^ *<!-- (not run|run with): (.+?) -->$")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass
class Block:
    """A block of code. ``reason``: why it is not run; ``replacements``: what a test shortens."""

    line: int
    language: str
    text: str
    reason: str = ""
    replacements: list[tuple[str, str]] = field(default_factory=list)

    def shortened(self) -> str:
        """The text with the replacements; each must be there."""
        text = self.text
        for old, new in self.replacements:
            assert old in text, f"line {self.line}: {old!r}, which is to be replaced, is not in the block"
            text = text.replace(old, new)
        return text


def page_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read_blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    blocks, lines, index = [], text.splitlines(), 0
    while index < len(lines):
        if (opened := FENCE.match(lines[index])) is None:
            index += 1
            continue
        indent, start = len(opened.group(1)), index + 1
        index = start
        while not ((closed := FENCE.match(lines[index])) and not closed.group(2)):
            index += 1
        body = "".join(f"{line[indent:]}\n" for line in lines[start:index])
        blocks.append(_marked(Block(start, opened.group(2), body), lines[start - 2] if start > 1 else ""))
        index += 1
    return blocks


def _marked(block: Block, mark: str) -> Block:
    if found := MARK.match(mark):
        if found.group(1) == "not run":
            block.reason = found.group(2)
        else:
            block.replacements = [tuple(pair.strip().split("=", 1)) for pair in found.group(2).split(",")]  # type: ignore[misc]
    return block


def prose_lines(text: str) -> list[tuple[int, str]]:
    """Numbered lines outside of fenced blocks."""
    lines, inside = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            lines.append((number, line))
    return lines


def links(text: str) -> list[tuple[int, str]]:
    """Line and target of each link."""
    return [(number, target) for number, line in prose_lines(text) for target in LINK.findall(line)]


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for _, line in prose_lines(text):
        if heading := re.match(r"^#+ +(.*?)\s*$", line):
            title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1)).lower()
            name = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
            number, unique = 0, name
            while unique in found:
                number += 1
                unique = f"{name}-{number}"
            found.add(unique)
    return found
