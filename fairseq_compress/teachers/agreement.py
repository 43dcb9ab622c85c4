"""Whether a teacher and its student mean the same by a token and a position: one comparison for all kinds of teachers.

A live teacher is asked about the student's own batches, a cached one was asked about a corpus, and a third only gives
its weights. Whatever the two may differ in is told in one list, before anything is trained.
"""

from dataclasses import dataclass, replace
from typing import Any

from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
from fairseq.models.transformer import DEFAULT_MAX_SOURCE_POSITIONS, DEFAULT_MAX_TARGET_POSITIONS, TransformerModelBase
from fairseq.tasks import TASK_REGISTRY, FairseqTask
from fairseq.tasks.translation import TranslationTask

from fairseq_compress.errors import ConfigError
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
    """What a model reads and writes; pairs are of the source and of the target."""

    languages: tuple[str | None, str | None]
    entries: tuple[Entries, Entries] | None = None
    """None if they could not be found."""
    truncated_to: int | None = None
    """Tokens to which longer sources are cut (``--truncate-source``)."""
    longest: tuple[int, int] | None = None
    """The most tokens of a sentence; None if it does not matter."""
    unread: int = 0
    """Sentences of a cache that were longer."""


def reading_of_task(task: FairseqTask) -> Reading:
    """What a student reads and writes."""
    cfg = task.cfg
    return Reading(
        languages=(cfg.source_lang, cfg.target_lang),
        entries=(Entries.of(task.source_dictionary), Entries.of(task.target_dictionary)),
        truncated_to=truncation(cfg),
        longest=task.max_positions(),
    )


def _has_plain_sentences(name: str | None) -> bool:
    """Whether a task is one of :data:`TASKS`, or a plugin's own that is derived from ``translation``."""
    task = TASK_REGISTRY.get(name)
    own = task is not None and issubclass(task, TranslationTask)
    return name in TASKS or (own and not task.__module__.startswith(("fairseq.", "fairseq_compress.")))


def truncation(cfg: Any) -> int | None:
    """The length to which a task cuts sources, None if it does not."""
    return int(cfg.max_source_positions) if getattr(cfg, "truncate_source", False) else None


def differences(option: str, teacher: Reading, student: Reading) -> list[str]:
    """Every difference that gives the same numbers another meaning, in words.

    Args:
        option: that names the teacher, with its value.
    """
    if teacher.languages != student.languages:
        pairs = ["-".join(map(str, languages)) for languages in (student.languages, teacher.languages)]
        # of other languages the dictionaries are of no interest
        return [f"{option}: the teacher must translate {pairs[0]} as the student does, it translates {pairs[1]}"]
    problems = []
    if teacher.entries and student.entries:
        for language, theirs, ours in zip(student.languages, teacher.entries, student.entries, strict=True):
            if theirs.sha256 != ours.sha256:
                problems.append(
                    f"{option}: the teacher's {language} dictionary must equal the student's; "
                    f"{_first_difference(theirs, ours)}"
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
    index, (theirs, ours) = next((index, pair) for index, pair in enumerate(pairs) if pair[0] != pair[1])
    return (
        f"the first difference is entry {index}: teacher {theirs!r}, student {ours!r} "
        f"({teacher.count} and {student.count} entries)"
    )


def _cut(reading: Reading) -> str:
    return "whole sources" if reading.truncated_to is None else f"sources cut to {reading.truncated_to} tokens"


def why_no_teacher(
    option: str,
    checkpoint: str,
    cfg: Any,
    task: FairseqTask,
    folder: str | None,
    folder_option: str,
    entries: tuple[Entries, Entries] | None = None,
    all_lengths: bool = True,
) -> list[str]:
    """What keeps a checkpoint from being the teacher of a task's student.

    Args:
        option: that names it, without its value.
        cfg: its configuration.
        task: the student's.
        folder: of its dictionaries, the value of ``folder_option``.
        entries: the dictionaries that it must have; None: the student's.
        all_lengths: whether it is asked about every sentence that the task lets through.
    """
    option = f"{option} {checkpoint}"
    problems = []
    if not _has_plain_sentences(name := cfg.task.get("_name")):
        problems.append(f"{option}: the teacher's task must be {' or '.join(TASKS)}, got {name}")
    student = reading_of_task(task)
    if entries is not None:
        student = replace(student, entries=entries)
    languages = (cfg.task.get("source_lang"), cfg.task.get("target_lang"))
    theirs = None
    if languages == student.languages:
        try:
            found = [find_dictionary(checkpoint, cfg, str(name), folder, folder_option) for name in languages]
            theirs = (Entries.of(found[0]), Entries.of(found[1]))
        except ConfigError as error:
            problems.append(str(error))
    # it is given what the student reads, so cut alike
    teacher = Reading(languages, theirs, student.truncated_to, _longest(cfg) if all_lengths else None)
    return problems + differences(option, teacher, student) + _padding(option, cfg, task)


def _padding(option: str, cfg: Any, task: FairseqTask) -> list[str]:
    """Padding counts where it may stand before a sentence; transformers do not see it."""
    if is_transformer(cfg):
        return []
    pairs = {
        name: (str(cfg.task.get(name)), str(getattr(task.cfg, name, None)))
        for name in ("left_pad_source", "left_pad_target")
    }
    return [
        f"--{name.replace('_', '-')}: must be {theirs}, as with the teacher of {option}, got {ours}"
        for name, (theirs, ours) in pairs.items()
        if theirs != ours
    ]


def _longest(cfg: Any) -> tuple[int, int] | None:
    """The most tokens of both sides that a checkpoint's model takes; None if its configuration does not tell."""
    source, target = (getattr(cfg.model, name, None) for name in ("max_source_positions", "max_target_positions"))
    if source is None or target is None:
        return (DEFAULT_MAX_SOURCE_POSITIONS, DEFAULT_MAX_TARGET_POSITIONS) if is_transformer(cfg) else None
    return int(source), int(target)


def architecture(cfg: Any) -> Any:
    """The name of a checkpoint's architecture."""
    return getattr(cfg.model, "_name", None) or getattr(cfg.model, "arch", None)


def is_transformer(cfg: Any) -> bool:
    """Whether a checkpoint's model is a transformer that is known here."""
    kind = ARCH_MODEL_REGISTRY.get(architecture(cfg)) or MODEL_REGISTRY.get(architecture(cfg))
    return kind is not None and issubclass(kind, TransformerModelBase)
