"""A student and a teacher with different vocabularies, trained together (arXiv:1909.11687)."""

from typing import Any

from fairseq.models import BaseFairseqModel
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.losses.outputs import Output
from fairseq_compress.models.student_output import project, takes_hidden, unwrapped
from fairseq_compress.modules.marian_conventions import ZeroStartEmbedding
from fairseq_compress.modules.projected_embedding import ProjectedEmbedding, ProjectedOutput, ProjectedTable
from fairseq_compress.weights.groups import chain_of


class DualVocabularyModel(BaseFairseqModel):
    """Both models as one for fairseq's trainer; its state dict has the keys ``student.`` and ``teacher.``.

    Args:
        student: over the student's dictionary.
        teacher: over the union of both.
        projection: where the student's table is the teacher's in another width.
    """

    def __init__(self, student: Any, teacher: Any, projection: ProjectedTable | None = None) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.student_projection = projection
        if projection is not None:
            _tie(student, teacher, projection)

    def forward(
        self, student: dict[str, Any], teacher: dict[str, Any], features_only: tuple[bool, bool] = (False, False)
    ) -> tuple[Tensor, Tensor]:
        """Logits of both (B, T, V), or their last hidden states (B, T, C) where ``features_only`` says so."""
        return (
            self.student(**student, features_only=features_only[0])[0],
            self.teacher(**teacher, features_only=features_only[1])[0],
        )

    def upgrade_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse weights of the other kind of embeddings."""
        super().upgrade_state_dict(state_dict)
        kinds = ("own", "projected")
        found = any(name.startswith("student_projection.") for name in state_dict)
        wanted = self.student_projection is not None
        if found != wanted:
            raise ConfigError(
                f"--student-embeddings: must be {kinds[found]}, as in the checkpoint, got {kinds[wanted]}"
            )

    def max_positions(self) -> tuple[int, int]:
        """The smaller of both models."""
        own, other = self.student.max_positions(), self.teacher.max_positions()
        return min(own[0], other[0]), min(own[1], other[1])


def dual_outputs(model: nn.Module, sample: dict[str, Any], source: str) -> tuple[Output, Output]:
    """Inputs of both losses, as of :func:`~fairseq_compress.models.student_output.student_output`."""
    inner = unwrapped(model)
    parts = inner.student, inner.teacher
    first, second = (takes_hidden(model, source, part) for part in parts)
    own, other = model(sample["net_input"], sample["teacher"]["net_input"], (first, second))
    return _output(parts[0], own, first), _output(parts[1], other, second)


def _output(part: Any, output: Tensor, hidden: bool) -> Output:
    return project(part, output) if hidden else output.reshape(-1, output.size(-1))


def _tie(student: Any, teacher: Any, projection: ProjectedTable) -> None:
    for name, model in (("teacher", teacher), ("student", student)):
        for table in (model.encoder.embed_tokens, model.decoder.embed_tokens):
            if not isinstance(table, nn.Embedding) or chain_of(table) is not None:
                raise ConfigError(
                    f"--student-embeddings projected: needs plain embeddings of the {name}, got {table} (or give own)"
                )
    if not student.decoder.share_input_output_embed:
        raise ConfigError(
            "--student-embeddings projected: needs a student whose output is tied to its embeddings "
            "(--share-all-embeddings, --share-decoder-input-output-embed), got one that is not"
        )
    if _shares_all(student) and not _shares_all(teacher):
        raise ConfigError(
            "--student-embeddings projected: needs a teacher that shares all embeddings, as the student does, got one "
            "that does not (give it --share-all-embeddings, or the student --no-share-all-embeddings)"
        )
    if isinstance(student.decoder.embed_tokens, ZeroStartEmbedding):
        raise ConfigError("--student-embeddings projected: needs --decoder-start eos, got zero")
    tables = teacher.encoder.embed_tokens, teacher.decoder.embed_tokens
    padding = student.decoder.padding_idx
    student.encoder.embed_tokens = ProjectedEmbedding(projection, tables[0], padding)
    student.decoder.embed_tokens = ProjectedEmbedding(projection, tables[1], padding)
    student.decoder.output_projection = ProjectedOutput(projection, tables[1])


def _shares_all(model: Any) -> bool:
    return model.encoder.embed_tokens.weight is model.decoder.embed_tokens.weight
