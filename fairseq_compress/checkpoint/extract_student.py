"""The student of a checkpoint of dual-vocabulary training, as an ordinary checkpoint next to its dictionaries."""

from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from omegaconf import DictConfig, OmegaConf

from fairseq_compress.checkpoint.load import build_model, dictionaries_of, load_upgraded
from fairseq_compress.checkpoint.state import plain_cfg, stock_configuration, with_model, write_state
from fairseq_compress.corpus.dual_text import DualTextManifest
from fairseq_compress.errors import CheckpointError, ConfigError, DataError
from fairseq_compress.surgery.extract_student import student_weights
from fairseq_compress.work.files import PathLike, atomic_write, check_distinct

DICTIONARY = "dict.student.txt"
TEACHER_OPTIONS = "dual_teacher"
"""The option of the student with the teacher's configuration, one line of JSON."""


def extract_student(path: PathLike, dictionary: PathLike | None = None) -> tuple[dict[str, Any], Path]:
    """An ordinary checkpoint of the student, without optimizer, and the file with its dictionary.

    Its task is ``translation`` with the same languages and data folder, its criterion one of fairseq's. By default
    ``dictionary`` is ``dict.student.txt`` in the first data folder of the checkpoint, which has default languages too.
    """
    state, cfg = load_upgraded(path)
    try:
        weights = student_weights(state["model"], cfg.model)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path}: {error}") from None
    file = Path(dictionary or Path(str(cfg.task.get("data") or "").split(":")[0]) / DICTIONARY)
    if not file.is_file():
        raise DataError(f"--dictionary: must name the student's {DICTIONARY}, got {file}, which is no file")
    entries = Dictionary.load(str(file))
    rows = [len(table) for table in dictionaries_of(weights)]
    if rows != [len(entries), len(entries)]:
        raise ConfigError(
            f"--dictionary: {file} must have as many entries as the student's tables of source and target, "
            f"{rows[0]} and {rows[1]}, got {len(entries)}"
        )
    configuration = _configuration(cfg)
    if not (cfg.task.get("source_lang") and cfg.task.get("target_lang")):
        source, target = DualTextManifest.of(file.parent).languages
        configuration["task"] |= {"source_lang": source, "target_lang": target}
    new = OmegaConf.create(configuration, flags={"allow_objects": True})
    build_model(path, {"model": dict(weights)}, new, entries, entries)  # raises where anything does not fit
    return with_model(state, configuration, weights), file


def write_student(path: PathLike, output: PathLike, dictionary: PathLike | None = None) -> dict[str, Any]:
    """Write :func:`extract_student` of ``path`` to ``output``, its dictionaries next to it first; return the state.

    Each file appears complete or not at all. ``dict.SRC.txt`` and ``dict.TGT.txt`` are both the student's dictionary.
    """
    state, file = extract_student(path, dictionary)
    task = state["cfg"]["task"]
    copies = [Path(output).parent / f"dict.{task[option]}.txt" for option in ("source_lang", "target_lang")]
    check_distinct([path, file], [output, *copies])
    contents = file.read_bytes()
    for copy in copies:
        if copy.is_file() and copy.read_bytes() != contents:
            raise ConfigError(f"--output: must be in a folder without a dictionary of another model, got {copy}")
    for copy in copies:
        with atomic_write(copy, "wb") as stream:
            stream.write(contents)
    write_state(state, output)
    return state


def _configuration(cfg: DictConfig) -> dict[str, Any]:
    """Stock but for the architecture, which may be one of ours; in plain values."""
    model: Any = plain_cfg(OmegaConf.create({"model": cfg.model}, flags={"allow_objects": True}))["model"]
    options = model if isinstance(model, dict) else vars(model)
    own = {name: value for name, value in options.items() if name != TEACHER_OPTIONS}
    return stock_configuration(cfg) | {"model": own}
