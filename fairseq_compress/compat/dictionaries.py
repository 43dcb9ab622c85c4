"""Dictionaries of fairseq: finding, reading, and the languages in their names."""

import functools
from collections.abc import Callable, Container, Iterable
from typing import Any

from fairseq import tasks
from fairseq.data import Dictionary, data_utils
from fairseq.file_io import PathManager

from fairseq_compress.compat.replacing import PATCHED, is_replaced, replace
from fairseq_compress.errors import MissingFileError


def read_dictionaries_with(read: Callable[[str, Container[str]], Iterable[Any]]) -> None:
    """Make fairseq load every dictionary given by path with ``read(path, known symbols)``.

    Args:
        read: yields entries with ``symbol``, ``occurrences`` and ``overwrite``.
    """
    original = getattr(Dictionary.add_from_file, PATCHED, Dictionary.add_from_file)

    @functools.wraps(original)
    def add_from_file(self: Any, f: Any) -> None:
        if not isinstance(f, str) or type(self)._load_meta is not Dictionary._load_meta:  # another format
            original(self, f)
            return
        if not PathManager.isfile(PathManager.get_local_path(f)):
            raise MissingFileError(f"cannot read {f}: No such file or directory")
        for entry in read(PathManager.get_local_path(f), frozenset(self.symbols)):
            self.add_symbol(entry.symbol, n=entry.occurrences, overwrite=entry.overwrite)

    replace(Dictionary, "add_from_file", original, add_from_file)


def patch_language_pairs() -> None:
    """Infer the languages of a data folder from its dictionaries, so that codes may have hyphens."""
    original = data_utils.infer_language_pair
    if is_replaced(original):
        return

    @functools.wraps(original)
    def infer_language_pair(path: str) -> tuple[str | None, str | None]:
        names = sorted(PathManager.ls(path))
        languages = {name[len("dict.") : -len(".txt")] for name in names if name.startswith("dict.")}
        pairs = [parts[1] for name in names if len(parts := name.split(".")) >= 3 and parts[0] != "dict"]
        for known in (languages, None):
            for pair in pairs:
                for source, target in _cuts(pair):
                    if known is None or {source, target} <= known:
                        return source, target
        return None, None

    replace(data_utils, "infer_language_pair", original, infer_language_pair)


def patch_task_languages() -> None:
    """Write the languages that a task inferred into the configuration, and so into checkpoints."""
    original = tasks.setup_task
    if is_replaced(original):
        return

    @functools.wraps(original)
    def setup_task(cfg: Any, **kwargs: Any) -> Any:
        task = original(cfg, **kwargs)
        for name in ("source_lang", "target_lang"):
            if getattr(cfg, name, "") is None and (found := getattr(task.cfg, name, None)) is not None:
                setattr(cfg, name, found)
        return task

    replace(tasks, "setup_task", original, setup_task)


def _cuts(pair: str) -> list[tuple[str, str]]:
    places = [place for place in range(1, len(pair) - 1) if pair[place] == "-"]
    return [(pair[:place], pair[place + 1 :]) for place in places]
