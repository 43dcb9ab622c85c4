"""Checksums of the inputs of a teacher cache: data files, dictionaries, teachers, settings of the task; no paths."""

from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask

from fairseq_compress.errors import ConfigError, DataError
from fairseq_compress.teachers.agreement import truncation
from fairseq_compress.teachers.dictionaries import dictionary_sha256
from fairseq_compress.work.files import PathLike, file_sha256


def data_checksums(folder: PathLike, split: str, source: str, target: str, parts: int) -> dict[str, str]:
    """SHA-256 of the binarized files of a split, both sides, in the order in which fairseq joins its parts.

    Args:
        split: ``train``, whose parts are ``train``, ``train1``, ``train2``, ...
        source, target: languages; the files may be named ``SPLIT.SOURCE-TARGET`` or ``SPLIT.TARGET-SOURCE``.

    Returns:
        ``{"train source.bin": ..., "train source.idx": ..., "train target.bin": ..., "train1 source.bin": ...}``
    """
    found = {}
    for number in range(parts):
        part = split + (str(number) if number else "")
        prefix = _prefix(Path(folder), part, source, target)
        for side, language in (("source", source), ("target", target)):
            for kind in ("bin", "idx"):
                found[f"{part} {side}.{kind}"] = file_sha256(f"{prefix}.{language}.{kind}")
    return found


def _prefix(folder: Path, part: str, source: str, target: str) -> Path:
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        prefix = folder / f"{part}.{pair}"
        if Path(f"{prefix}.{source}.idx").is_file():
            return prefix
    raise DataError(f"{folder}: has no binarized {part}.{source}-{target} (.bin and .idx)")


def dictionary_facts(dictionary: Dictionary) -> dict[str, Any]:
    """Number and SHA-256 of a dictionary's entries in their order, without counts."""
    return {"entries": len(dictionary), "sha256": dictionary_sha256(dictionary)}


def teacher_checksums(paths: str) -> list[str]:
    """Sorted SHA-256 of checkpoints separated by ``:``."""
    names = [path for path in paths.split(":") if path]
    if not names:
        raise ConfigError("--teacher-path: must name at least one checkpoint, got an empty value")
    return sorted(file_sha256(name) for name in names)


def split_facts(task: FairseqTask, split: str, parts: int, teacher_path: str) -> dict[str, Any]:
    """All checksums of one split of a task with one data folder, by their names in ``meta.json``."""
    cfg, sides = task.cfg, {"source": task.source_dictionary, "target": task.target_dictionary}
    languages = {"source_lang": str(cfg.source_lang), "target_lang": str(cfg.target_lang)}
    return {
        "split": split,
        "data": data_checksums(cfg.data, split, cfg.source_lang, cfg.target_lang, parts),
        "dictionaries": {side: dictionary_facts(dictionary) for side, dictionary in sides.items()},
        "teachers": teacher_checksums(teacher_path),
        "settings": languages | {"source_truncated_to": truncation(cfg)},
    }
