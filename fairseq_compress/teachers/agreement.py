"""Comparison of the inputs and outputs of a teacher and its student, for all kinds of teachers, before the training."""

from dataclasses import dataclass, replace
from typing import Any

from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
from fairseq.models.transformer import DEFAULT_MAX_SOURCE_POSITIONS, DEFAULT_MAX_TARGET_POSITIONS, TransformerModelBase
from fairseq.tasks import TASK_REGISTRY, FairseqTask
from fairseq.tasks.translation import TranslationTask

from fairseq_compress.architecture.configuration import architecture_of
from fairseq_compress.architecture.flags import KEY
from fairseq_compress.architecture.shape import LanguageTokens
from fairseq_compress.errors import ConfigError
from fairseq_compress.options import flag
from fairseq_compress.teachers.dictionaries import dictionary_sha256, find_dictionary

# Tasks whose sentences are the tokens of both sides with EOS and nothing else; fairseq's others add languages or masks.
TASKS = ("translation", "compressed_translation")
LIMITS = ("--max-source-positions", "--max-target-positions")


@dataclass(frozen=True)
class Entries:
    """A dictionary, by its checksum or with its symbols."""

    count: int
    sha256: str
    symbols: list[str] | None = None

    @classmethod
    def of(cls, dictionary: Dictionary) -> "Entries":
        return cls(len(dictionary), dictionary_sha256(dictionary), dictionary.symbols)


@dataclass(frozen=True)
class Reading:
    """Inputs and outputs of a model; pairs are of the source and of the target."""

    languages: tuple[str | None, str | None]
    entries: tuple[Entries, Entries] | None = None
    """None if unknown."""
    truncated_to: int | None = None
    """Tokens to which longer sources are cut (``--truncate-source``)."""
    longest: tuple[int, int] | None = None
    """The most tokens of a sentence; None for no limit."""
    unread: int = 0
    """Longer sentences of a cache."""


def reading_of_task(task: FairseqTask) -> Reading:
    """Inputs and outputs of a student."""
    cfg, entries = task.cfg, (Entries.of(task.source_dictionary), Entries.of(task.target_dictionary))
    return Reading((cfg.source_lang, cfg.target_lang), entries, truncation(cfg), task.max_positions())


def _has_plain_sentences(name: str | None) -> bool:
    """Whether a task is one of :data:`TASKS`, or a plugin's that is derived from ``translation``."""
    task = TASK_REGISTRY.get(name)
    own = task is not None and issubclass(task, TranslationTask)
    return name in TASKS or (own and not task.__module__.startswith(("fairseq.", "fairseq_compress.")))


def truncation(cfg: Any) -> int | None:
    """The length to which a task cuts sources, None if it does not."""
    return int(cfg.max_source_positions) if getattr(cfg, "truncate_source", False) else None


def differences(option: str, teacher: Reading, student: Reading) -> list[str]:
    """A message for each incompatibility; ``option``: the one that names the teacher, with its value."""
    if teacher.languages != student.languages:
        pairs = ["-".join(map(str, languages)) for languages in (student.languages, teacher.languages)]
        return [f"{option}: the teacher must translate {pairs[0]} as the student does, it translates {pairs[1]}"]
    problems = []
    if teacher.entries and student.entries:
        for language, *both in zip(student.languages, teacher.entries, student.entries, strict=True):
            if both[0].sha256 != both[1].sha256:
                problems.append(
                    f"{option}: the teacher's {language} dictionary must equal the student's; "
                    f"{_first_difference(*both)}"
                )
    if teacher.truncated_to != student.truncated_to:
        problems.append(
            f"--truncate-source: must be as with the teacher, {_cut(teacher)} ({option}), got {_cut(student)}"
        )
    for name, most, got in zip(LIMITS, teacher.longest or (), student.longest or (), strict=False):
        if got > most:
            why = f"{teacher.unread} longer sentences of {option} were not read by the teacher"
            why = why if teacher.unread else f"the teacher of {option} takes no longer sentences"
            problems.append(f"{name}: must be at most {most}, got {got}: {why}")
    return problems


def _first_difference(teacher: Entries, student: Entries) -> str:
    if teacher.symbols is None or student.symbols is None:
        both = (f"{found.count} entries of sha256 {found.sha256[:16]}" for found in (teacher, student))
        return "teacher {}, student {}".format(*both)
    pairs = zip([*teacher.symbols, None], [*student.symbols, None], strict=False)
    index, (one, other) = next((index, pair) for index, pair in enumerate(pairs) if pair[0] != pair[1])
    counts = f"({teacher.count} and {student.count} entries)"
    return f"the first difference is entry {index}: teacher {one!r}, student {other!r} {counts}"


def _cut(reading: Reading) -> str:
    return "whole sources" if reading.truncated_to is None else f"sources cut to {reading.truncated_to} tokens"


def why_no_teacher(
    option: str, checkpoint: str, cfg: Any, task: FairseqTask, folder: str | None, folder_option: str,
    entries: tuple[Entries, Entries] | None = None, all_lengths: bool = True,
) -> list[str]:  # fmt: skip
    """Why a checkpoint cannot be the teacher of a task's student.

    Args:
        option: the one that names it, without its value.
        folder: of its dictionaries, the value of ``folder_option``.
        entries: the dictionaries that it must have; None: the student's.
        all_lengths: whether it reads every sentence of the task.
    """
    option = f"{option} {checkpoint}"
    problems = []
    if not _has_plain_sentences(name := getattr(cfg.task, "_name", None)):
        problems.append(f"{option}: the teacher's task must be {' or '.join(TASKS)}, got {name}")
    student = reading_of_task(task)
    if entries is not None:
        student = replace(student, entries=entries)
    languages = (getattr(cfg.task, "source_lang", None), getattr(cfg.task, "target_lang", None))
    own = None
    if languages == student.languages:
        try:
            found = [find_dictionary(checkpoint, cfg, str(name), folder, folder_option) for name in languages]
            own = (Entries.of(found[0]), Entries.of(found[1]))
        except ConfigError as error:
            problems.append(str(error))
    teacher = Reading(languages, own, student.truncated_to, _longest(cfg) if all_lengths else None)
    return problems + differences(option, teacher, student) + _padding(option, cfg, task)


def _padding(option: str, cfg: Any, task: FairseqTask) -> list[str]:
    """Differences in the side of padding, which transformers do not see."""
    problems = []
    for name in () if is_transformer(cfg) else ("left_pad_source", "left_pad_target"):
        expected, found = str(getattr(cfg.task, name, None)), str(getattr(task.cfg, name, None))
        if expected != found:
            problems.append(f"{flag(name)}: must be {expected}, as with the teacher of {option}, got {found}")
    return problems


def _longest(cfg: Any) -> tuple[int, int] | None:
    """The most source and target tokens of a checkpoint's model; None if unknown."""
    source, target = (getattr(cfg.model, name, None) for name in ("max_source_positions", "max_target_positions"))
    if source is None or target is None:
        return (DEFAULT_MAX_SOURCE_POSITIONS, DEFAULT_MAX_TARGET_POSITIONS) if is_transformer(cfg) else None
    added = architecture_of(cfg.model).language_tokens if getattr(cfg.model, KEY, None) else LanguageTokens()
    return int(source) - len(added.source), int(target) - len(added.target)


def architecture(cfg: Any) -> Any:
    """The name of a checkpoint's architecture."""
    return getattr(cfg.model, "_name", None) or getattr(cfg.model, "arch", None)


def is_transformer(cfg: Any) -> bool:
    """Whether a checkpoint's model is a transformer that is known here."""
    kind = ARCH_MODEL_REGISTRY.get(architecture(cfg)) or MODEL_REGISTRY.get(architecture(cfg))
    return kind is not None and issubclass(kind, TransformerModelBase)
