"""The floors of the package: a module imports only from lower floors, or from its own room."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "fairseq_compress"
FLOORS = {
    "errors": 0,
    "compat": 0.5,  # these raise our errors
    "extras": 0.5, "languages": 0.5, "selection": 0.5, "shipped": 0.5, "system": 0.5,
    "functional": 1, "corpus": 1,
    "parametrizations": 2, "modules": 2, "inference": 2,
    "plans": 2.5,  # attached to any model, ours or not
    "models": 3, "checkpoint": 3,
    "teachers": 4,
    "datasets": 4.5,  # batches that carry what teachers said
    "criterions": 5, "tasks": 5,
    "evaluation": 6, "export": 6, "procedures": 6,
    "cli": 7, "api": 7,
}  # fmt: skip
WITHOUT = {  # rooms that must work without these packages
    "errors": {"torch", "fairseq"},
    "extras": {"torch", "fairseq"},
    "selection": {"torch", "fairseq"},
    "languages": {"torch", "fairseq"},
    "shipped": {"torch", "fairseq"},
    "system": {"torch", "fairseq"},
    "functional": {"fairseq"},
    "parametrizations": {"fairseq"},
    "plans": {"fairseq"},
    "corpus": {"torch", "fairseq"},
    "inference": {"torch", "fairseq"},
}
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
    found = []
    for name in imported_modules(ast.parse(source)):
        other = room(name)
        if other in FLOORS and other != own and FLOORS[other] >= FLOORS[own]:
            found.append(f"{own} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[other]})")
        if name.split(".")[0] in WITHOUT.get(own, set()):
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
