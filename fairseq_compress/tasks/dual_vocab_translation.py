"""Task ``dual_vocab_translation``: a student with few pieces and a teacher with many, trained together."""

import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from omegaconf import II

from fairseq_compress.corpus.dual_text import DualText, DualTextManifest
from fairseq_compress.datasets.dual_vocabulary import DualVocabularyDataset
from fairseq_compress.errors import ConfigError
from fairseq_compress.models.dual_vocabulary import DualVocabularyModel, ProjectedTable
from fairseq_compress.tasks.compressed_translation import CompressedTranslationConfig, CompressedTranslationTask
from fairseq_compress.teachers.dual import new_teacher, read_options, set_teacher, teacher_options, trained_teacher

CRITERION = "dual_vocab_kd"


@dataclass
class DualVocabTranslationConfig(CompressedTranslationConfig):
    """Options of :class:`DualVocabTranslationTask`, beside those of ``compressed_translation``."""

    p_mix: float = field(
        default=0.5,
        metadata={"help": "probability that the teacher sees a word in the student's pieces, in training"},
    )
    mix_sides: ChoiceEnum(["both", "source", "target"]) = field(  # type: ignore[valid-type]
        default="both", metadata={"help": "on which side the teacher's words are mixed"}
    )
    dual_teacher_arch: Optional[str] = field(  # noqa: UP045 - fairseq makes its option of this form only
        default=None, metadata={"help": "architecture of a new teacher, such as transformer_small"}
    )
    dual_teacher_options: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "with --dual-teacher-arch: what differs from it, as JSON: '{\"encoder_layers\": 3}'"},
    )
    dual_teacher_path: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "a trained teacher over the teacher's vocabulary, in place of a new one"},
    )
    dual_teacher_model: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "with --dual-teacher-path: its sentencepiece model, by which new pieces get their start"},
    )
    dual_teacher_data: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "folder with the dict.LANG.txt of --dual-teacher-path, if they are neither beside it nor in the "
            "data folder that it names"
        },
    )
    student_embeddings: ChoiceEnum(["own", "projected"]) = field(  # type: ignore[valid-type]
        default="own",
        metadata={"help": "the student's own table, or the teacher's rows of the same pieces, projected"},
    )
    seed: int = II("common.seed")
    valid_subset: str = II("dataset.valid_subset")


@register_task("dual_vocab_translation", dataclass=DualVocabTranslationConfig)
class DualVocabTranslationTask(CompressedTranslationTask):
    """Translation by two models at once, from a folder of ``fairseq-compress encode-dual`` (arXiv:1909.11687).

    The data folder has both dictionaries; those of the task are the student's. The model that ``--arch`` names is the
    student; its checkpoints hold the teacher too, and its architecture.
    ``fairseq-compress extract-student`` gives the student alone, which every other task and verb takes.

    Raises:
        ConfigError: options are out of their rules; all in one message.
        DataError: the folder is damaged or of something else.
    """

    def __init__(self, cfg: Any, src_dict: Dictionary, tgt_dict: Dictionary) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        problems = _problems(cfg)
        if problems:
            raise ConfigError("; ".join(problems))

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> "DualVocabTranslationTask":
        """The task over the folder's dictionaries; languages are the folder's where none are given."""
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
        self.datasets[split] = DualVocabularyDataset(
            source,
            target,
            self.cfg.p_mix if training else 0.0,
            int(self.cfg.seed),
            mix_source=str(self.cfg.mix_sides) != "target",
            mix_target=str(self.cfg.mix_sides) != "source",
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
        self._student = weakref.ref(model)
        return model

    def build_criterion(self, cfg: Any) -> Any:
        """Only one criterion has losses for both models."""
        name = getattr(cfg, "_name", None)
        if name != CRITERION:
            raise ConfigError(f"--criterion: must be {CRITERION} with the task dual_vocab_translation, got {name}")
        return super().build_criterion(cfg)

    def build_generator(self, *args: Any, **kwargs: Any) -> Any:
        """Two models do not translate together."""
        raise ConfigError(
            "--task dual_vocab_translation: cannot translate; fairseq-compress extract-student gives the student as an "
            "ordinary checkpoint"
        )


def _folder(cfg: Any) -> Path:
    return Path(str(cfg.data).split(":")[0])


def _problems(cfg: Any) -> list[str]:
    problems = []
    if not 0 <= cfg.p_mix <= 1:
        problems.append(f"--p-mix: must be a probability, 0 to 1, got {cfg.p_mix}")
    if bool(cfg.dual_teacher_arch) == bool(cfg.dual_teacher_path):
        got = "both" if cfg.dual_teacher_arch else "neither"
        problems.append(f"--dual-teacher-arch, --dual-teacher-path: must be one of the two, got {got}")
    if cfg.dual_teacher_options and not cfg.dual_teacher_arch:
        problems.append("--dual-teacher-options: must be given with --dual-teacher-arch")
    if bool(cfg.dual_teacher_model) != bool(cfg.dual_teacher_path):
        problems.append("--dual-teacher-model: must be given with --dual-teacher-path, and with nothing else")
    for option in ("truncate_source", "num_batch_buckets", "load_alignments"):
        if getattr(cfg, option, False):
            problems.append(f"--{option.replace('_', '-')}: must not be given with dual vocabularies")
    if str(cfg.left_pad_source) != "True" or str(cfg.left_pad_target) != "False":
        problems.append("--left-pad-source, --left-pad-target: must be fairseq's defaults with dual vocabularies")
    if ":" in str(cfg.data):
        problems.append(f"data: must be one folder of encode-dual, got {cfg.data}")
    if cfg.train_subset in str(cfg.valid_subset).split(","):
        problems.append(f"--valid-subset: must not have {cfg.train_subset}, whose words are mixed for training")
    return problems
