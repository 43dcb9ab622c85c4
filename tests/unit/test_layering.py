"""The floors of the package: a module imports only from lower floors, or from its own room."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "fairseq_compress"
FLOORS = {
    "errors": 0,
    "extras": 1, "languages": 1, "patterns": 0, "selection": 1, "shipped": 1, "system": 1,
    "options": 2,
    "compat": 3, "work": 3,
    "functional": 4, "corpus": 4,
    "architecture": 5,
    "modules": 6, "decoding": 6,
    "weights": 7,
    "surgery": 8,
    "models": 9, "checkpoint": 9,
    "teachers": 10,
    "runtimes": 11, "datasets": 11,
    "criterions": 12, "tasks": 12, "jobs": 12,
    "export": 13, "evaluation": 13, "procedures": 13,
    "cli": 14, "api": 14,
}  # fmt: skip
BOTH = {"torch", "fairseq"}
WITHOUT = {  # rooms that must work without these packages; a room inside another is named with a slash
    "errors": BOTH, "extras": BOTH, "languages": BOTH, "patterns": BOTH, "selection": BOTH, "shipped": BOTH,
    "system": BOTH,
    "options": BOTH, "work": BOTH, "corpus": BOTH, "decoding": BOTH,
    "runtimes/onnx": BOTH, "runtimes/ctranslate2": BOTH,
    "functional": {"fairseq"}, "weights": {"fairseq"}, "architecture": {"fairseq"},
}  # fmt: skip
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported_modules(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor: write the whole name"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "fairseq_compress" and len(parts) > 1 else None


def violations(path: Path, source: str) -> list[str]:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    inner = path.relative_to(PACKAGE).parent.as_posix()
    found = []
    for name in imported_modules(ast.parse(source)):
        other = room(name)
        if other in FLOORS and other != own and FLOORS[other] >= FLOORS[own]:
            found.append(f"{own} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[other]})")
        if name.split(".")[0] in WITHOUT.get(own, set()) | WITHOUT.get(inner, set()):
            found.append(f"{own} imports {name}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    assert violations(path, path.read_text()) == []


def test_every_room_has_a_floor():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert rooms == set(FLOORS)


def test_the_check_finds_a_violation():
    path = PACKAGE / "functional" / "example.py"
    assert violations(path, "from fairseq_compress.models import presets")
    assert violations(path, "def f():\n    import fairseq.utils")
    assert not violations(path, "from fairseq_compress.errors import ConfigError")
