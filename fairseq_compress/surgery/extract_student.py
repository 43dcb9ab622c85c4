"""The student's weights of dual-vocabulary training.

Its state dict has ``student.KEY``, ``teacher.KEY`` and, for projected embeddings, under ``student_projection.`` the
matrix ``weight`` P (D_s, D_t) and ``rows`` (V_s,), the teacher's row for each entry of the student.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fairseq_compress.errors import CheckpointError
from fairseq_compress.functional.layer_map import PARTS

STUDENT, TEACHER, PROJECTION = "student.", "teacher.", "student_projection."
MATRIX, ROWS = PROJECTION + "weight", PROJECTION + "rows"
TABLE, OUTPUT = "{}.embed_tokens.weight", "decoder.output_projection.weight"


def student_weights(weights: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The student's state dict, with ties. Projected tables of encoder and decoder are E_teacher[rows] Pᵀ.

    ``model`` has the options of the student that tie tables.
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
