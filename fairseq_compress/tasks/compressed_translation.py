"""Task ``compressed_translation``: fairseq's translation with support for compression and distillation."""

import logging
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary, FairseqDataset
from fairseq.logging import metrics
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import DictConfig, open_dict
from torch import Tensor

from fairseq_compress.compat import LearningRates, fairseq_options, reset_optimizer
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.autocast import AUTOCAST_DTYPES, native_autocast, warn_if_emulated
from fairseq_compress.functional.penalties import add_penalties, penalties_of
from fairseq_compress.functional.schedules import TrainingClock
from fairseq_compress.modules.activation_quantizer import step_ranges
from fairseq_compress.modules.positions import unobserved
from fairseq_compress.options import option
from fairseq_compress.surgery.teacher_start import WIDTHS
from fairseq_compress.teachers.initial_weights import start_from_teacher
from fairseq_compress.weights.reading import read_plan, set_plan

Wrap = Callable[[str, FairseqDataset], FairseqDataset]
logger = logging.getLogger(__name__)


@fairseq_options
class CompressedTranslationConfig(TranslationConfig):
    """Options of :class:`CompressedTranslationTask`, besides those of ``translation``."""

    autocast_dtype: str = option(
        "none",
        "type of matrix products (torch.autocast) in training, validation and generation; weights, gradients and "
        "optimizer stay float32. auto: bfloat16 if the processor or GPU has instructions for it, else none; without "
        "such instructions bfloat16 is up to 20 times slower",
        choices=AUTOCAST_DTYPES,
    )
    compression_plan: str | None = option(
        None,
        "YAML file, or name of a built-in plan such as int4, for quantization-aware training "
        "(docs/compression-plans.md)",
    )
    init_from_teacher: str | None = option(
        None,
        "checkpoint of a transformer with the same languages and dictionaries, whose embeddings and layers initialize "
        "a new model; --restore-file and --finetune-from-model replace them",
    )
    init_layers: str | None = option(
        None,
        "with --init-from-teacher: for each layer of the model, the teacher layer (from 0): 'encoder:0,2,4 "
        "decoder:0,2'; or none for a whole part: 'decoder:none'. A part that is not named: layers spread evenly",
    )
    init_widths: str = option(
        "refuse",
        "with --init-from-teacher, if the model is narrower: refuse; slices: leading rows and columns of weights; svd: "
        "project the residual stream on the main directions of the teacher's embeddings, slices elsewhere",
        choices=WIDTHS,
    )
    init_teacher_data: str | None = option(
        None,
        "folder with the dict.LANG.txt of --init-from-teacher (default: next to it, then its training data folder)",
    )


@register_task("compressed_translation", dataclass=CompressedTranslationConfig)
class CompressedTranslationTask(TranslationTask):
    """Stock translation, with ``--autocast-dtype`` for CPU and GPU (fairseq's ``--bf16 --cpu`` crashes).

    Batches are cut again for each epoch, from seed and epoch, so a resumed run sees those of an uninterrupted one.
    """

    def __init__(self, cfg: Any, src_dict: Dictionary, tgt_dict: Dictionary) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        if (buckets := getattr(cfg, "num_batch_buckets", 0)) and not hasattr(np, "compat"):
            raise ConfigError(
                f"--num-batch-buckets: must be 0, fairseq cannot make them with numpy {np.__version__}, got {buckets}"
            )
        self._wraps: list[Wrap] = []
        self._student: Callable[[], Any] = lambda: None
        self.clock = TrainingClock()
        self.learning_rates = LearningRates()
        self._stepped: int | None = None  # the update whose optimizer step came last
        self.from_teacher: frozenset[str] | None = None
        self.resolved_options: dict[str, Any] = {}
        self._trained_with: str | None = None  # --autocast-dtype of the checkpoint that a training resumes from
        with open_dict(cfg) if isinstance(cfg, DictConfig) else nullcontext():
            cfg.rebuild_batches = True  # read by get_batch_iterator

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build the model: a new one by ``--compression-plan`` and ``--init-from-teacher``, or that of a checkpoint."""
        path = getattr(self.cfg, "compression_plan", None)
        if path and not from_checkpoint:
            set_plan(cfg, read_plan(path))
        model = super().build_model(cfg, from_checkpoint)
        self.from_teacher = None  # unknown
        if not from_checkpoint:
            self.from_teacher = start_from_teacher(model, self, getattr(cfg, "finetune_from_model", None))
        self._give_clock(model)
        return model

    def _give_clock(self, model: Any) -> None:
        self._student = weakref.ref(model)
        for module in model.modules():
            if hasattr(type(module), "set_clock"):
                module.set_clock(self.clock)

    @property
    def student(self) -> Any:
        """The model that was built last, None before; for criterions."""
        return self._student()

    def begin_epoch(self, epoch: int, model: Any) -> None:
        super().begin_epoch(epoch, model)
        self.clock.epoch = epoch

    def wrap_datasets(self, wrap: Wrap) -> None:
        """Replace every dataset, also those that are loaded later, by ``wrap(split, dataset)``."""
        self._wraps.append(wrap)
        for split, dataset in self.datasets.items():
            self.datasets[split] = wrap(split, dataset)

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        for wrap in self._wraps:
            self.datasets[split] = wrap(split, self.datasets[split])

    def train_step(
        self, sample: Any, model: Any, criterion: Any, optimizer: Any, update_num: int, ignore_grad: bool = False
    ) -> Any:
        self.clock.update, self.clock.counts = update_num, not ignore_grad
        self._tell_autocast(sample, model)
        # Autocast wraps the criterion, so that it ends before the backward pass.
        penalized = self._with_penalties(self._under_autocast(criterion))
        with unobserved() if ignore_grad else nullcontext():
            return super().train_step(sample, model, penalized, optimizer, update_num, ignore_grad)

    def _with_penalties(self, criterion: Any) -> Any:
        def forward(model: Any, sample: Any) -> Any:
            loss, sample_size, logged = criterion(model, sample)
            if penalties := list(penalties_of(model)):
                loss, logged = add_penalties(penalties, self.clock.update, loss, sample_size, logged)
            return loss, sample_size, logged

        return forward

    def reduce_metrics(self, logging_outputs: Any, criterion: Any) -> None:
        """Log the criterion's metrics and the penalties, and count target tokens of the training."""
        super().reduce_metrics(logging_outputs, criterion)
        size = sum(log.get("sample_size", 0) for log in logging_outputs)
        for key in sorted({key for log in logging_outputs for key in log if key.endswith("_penalty")}):
            value = sum(log.get(key, 0) for log in logging_outputs)
            metrics.log_scalar(key, value / (size or 1), size, round=4)
        if criterion.training:
            self.clock.tokens += int(sum(log.get("ntokens", 0) for log in logging_outputs))

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """Step optimizer and activation ranges; the optimizer is reset after the training's first phase."""
        if self.learning_rates.first_updates and update_num == self.learning_rates.first_updates:
            reset_optimizer(optimizer)
        super().optimizer_step(optimizer, model, update_num)
        step_ranges(model, again=update_num == self._stepped)
        self._stepped = update_num

    def valid_step(self, sample: Any, model: Any, criterion: Any) -> Any:
        return super().valid_step(sample, model, self._under_autocast(criterion))

    def inference_step(
        self, generator: Any, models: Any, sample: Any, prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
    ) -> Any:  # fmt: skip
        with self._autocast(sample, models[0]):
            return super().inference_step(generator, models, sample, prefix_tokens, constraints)

    def _under_autocast(self, criterion: Any) -> Any:
        def forward(model: Any, sample: Any) -> Any:
            with self._autocast(sample, model):
                return criterion(model, sample)

        return forward

    def _autocast(self, sample: Any, model: Any) -> AbstractContextManager[Any]:
        dtype = AUTOCAST_DTYPES[self._autocast_dtype(sample, model)]
        device = sample["net_input"]["src_tokens"].device.type
        return nullcontext() if dtype is None else torch.autocast(device, dtype=dtype)

    def _autocast_dtype(self, sample: Any, model: Any) -> str:
        """The value of ``--autocast-dtype``; ``auto`` is resolved with the first batch, which is on the device."""
        given = str(getattr(self.cfg, "autocast_dtype", "none"))
        if "autocast_dtype" not in self.resolved_options and given != "none":
            device = sample["net_input"]["src_tokens"].device.type
            chosen = given
            if given == "auto":
                weights = next(model.parameters()).dtype  # those of --fp16 and --bf16 are of another type already
                chosen = native_autocast(device) if weights is torch.float32 else "none"
                logger.info(f"--autocast-dtype auto: {chosen} on this {device}")
            elif given == "bfloat16":
                warn_if_emulated("--autocast-dtype", device)
            self.resolved_options["autocast_dtype"] = chosen
        return str(self.resolved_options.get("autocast_dtype", given))

    def _tell_autocast(self, sample: Any, model: Any) -> None:
        """Warn once if a training resumes in another type; results will differ in their last digits."""
        now = self._autocast_dtype(sample, model)
        if self._trained_with not in (None, now):
            logger.warning(f"--autocast-dtype: {now} from here, this training had {self._trained_with} so far")
        self._trained_with = None

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().state_dict()
        given = str(getattr(self.cfg, "autocast_dtype", "none"))
        state["autocast_dtype"] = self.resolved_options.get("autocast_dtype", given)
        return state | ({"tokens": self.clock.tokens} if self.clock.tokens else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self._trained_with = state.pop("autocast_dtype", None)
        self.clock.tokens = state.pop("tokens", 0)
        super().load_state_dict(state)
