"""Whether a teacher speaks the student's language: the languages, and its dictionaries, which are found here."""

from pathlib import Path

from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask
from omegaconf import DictConfig

from fairseq_compress.errors import ConfigError


def find_dictionary(
    checkpoint: str, cfg: DictConfig, language: str, given_dir: str | None, option: str = "--teacher-data"
) -> Dictionary:
    """The dictionary a teacher was trained with, ``dict.LANGUAGE.txt``.

    Looked for in ``given_dir``, the value of ``option``, when there is one, else beside the checkpoint (where published
    models keep it), else in the data folder that the checkpoint names.

    Raises:
        ConfigError: there is none, and so nothing proves that teacher and student mean the same by an index.
    """
    name = f"dict.{language}.txt"
    trained_on = [Path(part) for part in str(cfg.task.get("data") or "").split(":")[:1] if part]
    folders = [Path(given_dir)] if given_dir else [Path(checkpoint).parent, *trained_on]
    for folder in folders:
        if (folder / name).is_file():
            return Dictionary.load(str(folder / name))
    looked = ", ".join(str(folder) for folder in folders)
    raise ConfigError(
        f"{option}: must name the folder with the teacher's {name}; there is none in {looked} (teacher {checkpoint})"
    )


def check_languages(option: str, cfg: DictConfig, task: FairseqTask) -> None:
    """Refuse a teacher, the value of ``option`` with the configuration ``cfg``, of other languages than the student's.

    Raises:
        ConfigError: naming both pairs.
    """
    theirs = (cfg.task.get("source_lang"), cfg.task.get("target_lang"))
    ours = (task.cfg.source_lang, task.cfg.target_lang)
    if theirs != ours:
        raise ConfigError(
            f"{option}: the teacher must translate {ours[0]}-{ours[1]} as the student does, "
            f"it translates {theirs[0]}-{theirs[1]}"
        )


def check_same(option: str, language: str, teacher: Dictionary, student: Dictionary) -> None:
    """Refuse a teacher, the value of ``option``, whose dictionary differs: its entry i would be another piece.

    Raises:
        ConfigError: naming the first entry that differs.
    """
    for index in range(max(len(teacher), len(student))):
        theirs = teacher.symbols[index] if index < len(teacher) else None
        ours = student.symbols[index] if index < len(student) else None
        if theirs != ours:
            raise ConfigError(
                f"{option}: the teacher's {language} dictionary must equal the student's; the first "
                f"difference is entry {index}: teacher {theirs!r}, student {ours!r} "
                f"({len(teacher)} and {len(student)} entries)"
            )
