"""Where the configurations are that the package ships: ``configs/`` of the repository, of which a wheel has a copy."""

from collections.abc import Iterable
from pathlib import Path

from fairseq_compress.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")
"""The copy in an installed package first, then the folder of the repository."""


def shipped(*parts: str) -> Path:
    """The path of a shipped configuration: ``shipped("plans", "int4.yaml")``."""
    for folder in FOLDERS:
        path = folder.joinpath(*parts)
        if path.is_file():
            return path
    name = Path(*parts)
    suggestion = did_you_mean(name.stem, shipped_names(*parts[:-1], suffix=name.suffix))
    raise ConfigError(f"{name.stem}: not shipped in configs/{'/'.join(parts[:-1])}{suggestion}")


def shipped_names(*parts: str, suffix: str) -> list[str]:
    """The names, without ``suffix``, of the shipped files of a folder: ``shipped_names("plans", suffix=".yaml")``."""
    return sorted({path.stem for folder in FOLDERS for path in folder.joinpath(*parts).glob(f"*{suffix}")})


def did_you_mean(name: str, known: Iterable[str], listed: bool = True) -> str:
    """The end of an error message about an unknown name: the closest known one, and all of them if ``listed``."""
    import difflib  # no verb needs it unless something is wrong

    names = list(known)
    closest = difflib.get_close_matches(name, names, 1)
    guess = [f"did you mean {closest[0]}?"] if closest else []
    found = " ".join([*guess, *([f"available: {', '.join(names) or 'none'}"] if listed else [])])
    return f"; {found}" if found else ""
