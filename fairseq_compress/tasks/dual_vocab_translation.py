"""Task ``dual_vocab_translation``: a student with few subwords and a teacher with many, trained together."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.tasks import register_task
from omegaconf import II

from fairseq_compress.compat import configured, fairseq_options
from fairseq_compress.corpus.dual_text import DualText, DualTextManifest
from fairseq_compress.datasets.dual_vocabulary import DualVocabularyDataset
from fairseq_compress.errors import ConfigError
from fairseq_compress.models.dual_vocabulary import DualVocabularyModel, ProjectedTable
from fairseq_compress.options import check, flag, option
from fairseq_compress.tasks.compressed_translation import CompressedTranslationConfig, CompressedTranslationTask
from fairseq_compress.teachers.dual import new_teacher, read_options, set_teacher, teacher_options, trained_teacher

CRITERION = "dual_vocab_kd"


@fairseq_options
class DualVocabTranslationConfig(CompressedTranslationConfig):
    """Options of :class:`DualVocabTranslationTask`, besides those of ``compressed_translation``."""

    p_mix: float = option(
        0.5, "probability that a word of the teacher's training text is in the student's subwords", range="[0, 1]"
    )
    mix_sides: str = option(
        "both", "sides of the teacher's text on which subwords are mixed", choices=("both", "source", "target")
    )
    dual_teacher_arch: str | None = option(
        None, "architecture of a new teacher, such as transformer_small; or give --dual-teacher-path"
    )
    dual_teacher_options: str | None = option(
        None, "changes to --dual-teacher-arch, as JSON: '{\"encoder_layers\": 3}'", needs="dual_teacher_arch"
    )
    dual_teacher_path: str | None = option(None, "checkpoint of a trained teacher; or give --dual-teacher-arch")
    dual_teacher_model: str | None = option(
        None,
        "SentencePiece model of --dual-teacher-path, which initializes the embeddings of new subwords",
        needs="dual_teacher_path",
    )
    dual_teacher_data: str | None = option(
        None,
        "folder with the dict.LANG.txt of --dual-teacher-path (default: next to it, then its training data folder)",
    )
    student_embeddings: str = option(
        "projected",
        "projected: the teacher's embeddings of the same subwords through a learned projection; own: a separate table",
        choices=("projected", "own"),
    )
    seed: int = II("common.seed")
    valid_subset: str = II("dataset.valid_subset")


@register_task("dual_vocab_translation", dataclass=DualVocabTranslationConfig)
class DualVocabTranslationTask(CompressedTranslationTask):
    """Training of two models, from a folder of ``fairseq-compress encode-dual`` (arXiv:1909.11687).

    ``--arch`` and the dictionaries are the student's; its checkpoints hold the teacher too, and its architecture.
    ``fairseq-compress extract-student`` writes the student alone, for every other task and verb.
    """

    def __init__(self, cfg: Any, src_dict: Dictionary, tgt_dict: Dictionary) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        check(configured(DualVocabTranslationConfig, cfg), _problems(cfg))

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> "DualVocabTranslationTask":
        """The task over the folder's dictionaries; languages default to the folder's."""
        folder = _folder(cfg)
        source, target = DualTextManifest.of(folder).languages
        cfg.source_lang, cfg.target_lang = cfg.source_lang or source, cfg.target_lang or target
        student = Dictionary.load(str(folder / "dict.student.txt"))
        return cls(cfg, student, student)

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Validation and test parts are in the teacher's own segmentation."""
        source, target = (
            DualText(_folder(self.cfg), split, lang) for lang in (self.cfg.source_lang, self.cfg.target_lang)
        )
        if combine and f"{split}1" in DualTextManifest.of(_folder(self.cfg)).parts:
            raise ConfigError(f"--combine-valid-subsets: must not be given, as {split} and {split}1 are apart here")
        training = split == self.cfg.train_subset
        p_mix, sides = self.cfg.p_mix if training else 0.0, str(self.cfg.mix_sides)
        self.datasets[split] = DualVocabularyDataset(
            source, target, p_mix, int(self.cfg.seed), mix_source=sides != "target", mix_target=sides != "source"
        )

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> DualVocabularyModel:
        """The student as ``compressed_translation`` builds it, and its teacher."""
        student = super().build_model(cfg, from_checkpoint)
        union = Dictionary.load(str(_folder(self.cfg) / "dict.union.txt"))
        if from_checkpoint:
            teacher = new_teacher(teacher_options(cfg), union)
        elif self.cfg.dual_teacher_path:
            options, teacher = trained_teacher(self, _folder(self.cfg), union)
            set_teacher(cfg, options)
        else:
            options = read_options(self.cfg.dual_teacher_arch, self.cfg.dual_teacher_options)
            teacher = new_teacher(options, union)
            set_teacher(cfg, options)
        projection = None
        if str(self.cfg.student_embeddings) == "projected":
            rows = torch.tensor([union.index(symbol) for symbol in self.source_dictionary.symbols])
            widths = student.encoder.embed_tokens.embedding_dim, teacher.encoder.embed_tokens.embedding_dim
            projection = ProjectedTable(rows, *widths)
        model = DualVocabularyModel(student, teacher, projection)
        self._give_clock(model)
        return model

    def build_criterion(self, cfg: Any) -> Any:
        """Require the criterion for both models."""
        name = getattr(cfg, "_name", None)
        if name != CRITERION:
            raise ConfigError(f"--criterion: must be {CRITERION} with the task dual_vocab_translation, got {name}")
        return super().build_criterion(cfg)

    def build_generator(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse to translate with both models."""
        raise ConfigError(
            "--task dual_vocab_translation: cannot translate; fairseq-compress extract-student gives the student as an "
            "ordinary checkpoint"
        )


def _folder(cfg: Any) -> Path:
    return Path(str(cfg.data).split(":")[0])


def _problems(cfg: Any) -> Iterator[str]:
    if bool(cfg.dual_teacher_arch) == bool(cfg.dual_teacher_path):
        got = "both" if cfg.dual_teacher_arch else "neither"
        yield f"--dual-teacher-arch, --dual-teacher-path: must be one of the two, got {got}"
    if cfg.dual_teacher_path and not cfg.dual_teacher_model:
        yield "--dual-teacher-model: must be given with --dual-teacher-path, got nothing"
    for name in ("truncate_source", "num_batch_buckets", "load_alignments"):
        if getattr(cfg, name, False):
            yield f"{flag(name)}: must not be given with dual vocabularies"
    if str(cfg.left_pad_source) != "True" or str(cfg.left_pad_target) != "False":
        yield "--left-pad-source, --left-pad-target: must be fairseq's defaults with dual vocabularies"
    if ":" in str(cfg.data):
        yield f"data: must be one folder of encode-dual, got {cfg.data}"
    if cfg.train_subset in str(cfg.valid_subset).split(","):
        yield f"--valid-subset: must not have {cfg.train_subset}, whose words are mixed for training"
