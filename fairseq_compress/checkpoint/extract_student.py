"""The student out of a checkpoint of dual-vocabulary training, as an ordinary checkpoint with its dictionaries beside.

The checkpoint holds a student, a teacher and, where the student's embeddings are the teacher's in another size, their
projection, all under ``model``: ``student.KEY``, ``teacher.KEY``, and under ``student_projection.`` the matrix
``weight`` P (D_s, D_t) and the index map ``rows`` (V_s,), the teacher's row for each entry of the student. Its
configuration has the student's architecture under ``model``.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.data import Dictionary
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from fairseq_compress.checkpoint.load import build_model, dictionaries_of, load_upgraded
from fairseq_compress.checkpoint.state import plain_cfg, without_training_state, write_state
from fairseq_compress.checkpoint.stock_configuration import stock_configuration
from fairseq_compress.corpus.dual_text import DualTextManifest
from fairseq_compress.errors import CheckpointError, ConfigError, DataError
from fairseq_compress.functional.layer_map import PARTS
from fairseq_compress.work.files import atomic_write, check_distinct

STUDENT, TEACHER, PROJECTION = "student.", "teacher.", "student_projection."
MATRIX, ROWS = PROJECTION + "weight", PROJECTION + "rows"
DICTIONARY = "dict.student.txt"
TEACHER_OPTIONS = "dual_teacher"
"""Of the student's configuration: that of the teacher, one line of JSON, so that every checkpoint carries it."""
TABLE, OUTPUT = "{}.embed_tokens.weight", "decoder.output_projection.weight"


def student_weights(weights: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The student's state dict out of that of student and teacher; tensors that were one stay one.

    With a projection its tables are E_teacher[rows] Pᵀ, those of encoder and decoder each of the teacher's own, and
    one tensor where the student ties them.

    Args:
        model: the options of the student's architecture, which say what is tied.

    Raises:
        CheckpointError: there is no student; a key belongs to nobody; or the projection is damaged, or ties tables that
            differ in the teacher.
    """
    student = {key.removeprefix(STUDENT): value for key, value in weights.items() if key.startswith(STUDENT)}
    if not student:
        raise CheckpointError(f"model: must have weights under {STUDENT}, got none: it was not trained with two models")
    unknown = [key for key in weights if not key.startswith((STUDENT, TEACHER, PROJECTION))]
    if unknown:
        raise CheckpointError(f"model: must have keys under {STUDENT}, {TEACHER} and {PROJECTION}, got {unknown[0]}")
    if any(key.startswith(PROJECTION) for key in weights):
        student |= _projected_tables(weights, model)
    return student


def extract_student(
    path: str | os.PathLike[str], dictionary: str | os.PathLike[str] | None = None
) -> tuple[dict[str, Any], Path]:
    """An ordinary checkpoint of the student, without optimizer, and the file with its dictionary.

    Its task is ``translation`` with languages and data folder as they were, its criterion one of fairseq's. Languages
    that the training was not told are those of the folder that has the dictionary.

    Args:
        dictionary: by default ``dict.student.txt`` in the first data folder that the checkpoint names.

    Raises:
        CheckpointError: the file cannot be loaded, is of another training, or its weights and its architecture do not
            fit each other.
        ConfigError: the dictionary has another size than the student's tables.
        DataError: the dictionary is missing or damaged.
    """
    state, cfg = load_upgraded(path)
    try:
        weights = student_weights(state["model"], cfg.model)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path}: {error}") from None
    file = Path(dictionary) if dictionary is not None else _data_folder(cfg) / DICTIONARY
    entries = _load_dictionary(file)
    rows = [len(table) for table in dictionaries_of(weights)]
    if rows != [len(entries), len(entries)]:
        raise ConfigError(
            f"--dictionary: {file} must have as many entries as the student's tables of source and target, "
            f"{rows[0]} and {rows[1]}, got {len(entries)}"
        )
    configuration = _configuration(cfg)
    if not (cfg.task.get("source_lang") and cfg.task.get("target_lang")):  # the training took those of its folder
        source, target = DualTextManifest.of(file.parent).languages
        configuration["task"] |= {"source_lang": source, "target_lang": target}
    new = OmegaConf.create(configuration, flags={"allow_objects": True})
    build_model(path, {"model": dict(weights)}, new, entries, entries)  # raises where anything does not fit
    return without_training_state(state) | {"args": None, "cfg": configuration, "model": weights}, file


def write_student(
    path: str | os.PathLike[str], output: str | os.PathLike[str], dictionary: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Write :func:`extract_student` of ``path`` to ``output``, its dictionaries beside it first, and return the state.

    Each file appears complete or not at all. ``dict.SRC.txt`` and ``dict.TGT.txt`` are both the student's dictionary.

    Raises:
        ConfigError: an output is an input, or a dictionary of another model is beside the output already; else as
            :func:`extract_student`.
    """
    state, file = extract_student(path, dictionary)
    task = state["cfg"]["task"]
    beside = [Path(output).parent / f"dict.{task[option]}.txt" for option in ("source_lang", "target_lang")]
    check_distinct([path, file], [output, *beside])
    contents = file.read_bytes()
    for copy in beside:
        if copy.is_file() and copy.read_bytes() != contents:
            raise ConfigError(f"--output: must be in a folder without a dictionary of another model, got {copy}")
    for copy in beside:
        with atomic_write(copy, "wb") as stream:
            stream.write(contents)
    write_state(state, output)
    return state


def _projected_tables(weights: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The student's tables, and the output matrix where it is tied to the decoder's."""
    keys = [MATRIX, ROWS, *(TEACHER + TABLE.format(part) for part in PARTS)]
    missing = [key for key in keys if key not in weights]
    if missing:
        raise CheckpointError(f"model: must have all that makes the student's tables, got no {', '.join(missing)}")
    matrix, rows, *teachers = (weights[key] for key in keys)
    _check_projection(matrix, rows, teachers)
    all_tied = bool(getattr(model, "share_all_embeddings", False))
    if all_tied and not torch.equal(*teachers):
        raise CheckpointError("model: must have equal tables in the teacher where the student ties its own, got others")
    source = F.linear(teachers[0][rows], matrix)
    target = source if all_tied else F.linear(teachers[1][rows], matrix)
    tables = dict(zip(map(TABLE.format, PARTS), (source, target), strict=True))
    tied = all_tied or bool(getattr(model, "share_decoder_input_output_embed", False))
    return tables | ({OUTPUT: target} if tied else {})


def _check_projection(matrix: Tensor, rows: Tensor, teachers: Sequence[Tensor]) -> None:
    for table in teachers:
        if matrix.dim() != 2 or matrix.size(1) != table.size(1):
            raise CheckpointError(f"model: {MATRIX} must be (D, {table.size(1)}), got {tuple(matrix.shape)}")
        low, high = (int(bound) for bound in torch.aminmax(rows)) if rows.numel() else (-1, -1)
        if rows.dim() != 1 or low < 0 or high >= table.size(0):
            raise CheckpointError(
                f"model: {ROWS} must be (V,) with rows 0 to {table.size(0) - 1} of the teacher, got "
                f"{tuple(rows.shape)} with {low} to {high}"
            )


def _configuration(cfg: DictConfig) -> dict[str, Any]:
    """Stock but for the architecture, which may be one of ours; in plain values."""
    model: Any = plain_cfg(OmegaConf.create({"model": cfg.model}, flags={"allow_objects": True}))["model"]
    options = model if isinstance(model, dict) else vars(model)
    own = {name: value for name, value in options.items() if name != TEACHER_OPTIONS}
    return stock_configuration(cfg) | {"model": own}


def _data_folder(cfg: DictConfig) -> Path:
    return Path(str(cfg.task.get("data") or "").split(":")[0])


def _load_dictionary(file: Path) -> Dictionary:
    if not file.is_file():
        raise DataError(f"--dictionary: must name the student's {DICTIONARY}, got {file}, which is no file")
    return Dictionary.load(str(file))
