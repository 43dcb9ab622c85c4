"""What a teacher cache was made from, as checksums: data files, dictionaries, teachers, settings of the task.

Every value is JSON-able and names no folder, so a cache, its data and its teachers can be moved.
"""

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
        folder: the binarized data.
        split: ``train``, whose parts are ``train``, ``train1``, ``train2``, ...
        source: source language; the files may be named ``SPLIT.SOURCE-TARGET`` or ``SPLIT.TARGET-SOURCE``.
        target: target language.
        parts: how many parts were loaded.

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
    """Number and SHA-256 of a dictionary's entries in their order; counts of words are not part of it."""
    return {"entries": len(dictionary), "sha256": dictionary_sha256(dictionary)}


def teacher_checksums(paths: str) -> list[str]:
    """Sorted SHA-256 of checkpoints separated by ``:``; their order in an ensemble means nothing."""
    names = [path for path in paths.split(":") if path]
    if not names:
        raise ConfigError("--teacher-path: must name at least one checkpoint, got an empty value")
    return sorted(file_sha256(name) for name in names)


def task_settings(cfg: Any) -> dict[str, Any]:
    """The options of a translation task that change what a teacher reads. Padding on either side does not."""
    return {
        "source_lang": str(cfg.source_lang),
        "target_lang": str(cfg.target_lang),
        "source_truncated_to": truncation(cfg),
    }


def split_facts(task: FairseqTask, split: str, parts: int, teacher_path: str) -> dict[str, Any]:
    """All checksums of one split of a task with one data folder, under the names that ``meta.json`` has for them."""
    cfg = task.cfg
    return {
        "split": split,
        "data": data_checksums(cfg.data, split, cfg.source_lang, cfg.target_lang, parts),
        "dictionaries": {
            "source": dictionary_facts(task.source_dictionary),
            "target": dictionary_facts(task.target_dictionary),
        },
        "teachers": teacher_checksums(teacher_path),
        "settings": task_settings(cfg),
    }
