"""Task ``compressed_translation``: fairseq's translation and what compression needs beside it."""

import logging
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
import torch
from fairseq.data import Dictionary, FairseqDataset
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import DictConfig, open_dict
from torch import Tensor, nn

from fairseq_compress.compat import reset_optimizer
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.autocast import AUTOCAST_DTYPES, native_autocast, warn_if_emulated
from fairseq_compress.functional.layer_map import Transfer
from fairseq_compress.modules.activation_quantizer import step_ranges
from fairseq_compress.modules.positions import unobserved
from fairseq_compress.surgery.teacher_start import WIDTHS
from fairseq_compress.teachers.initial_weights import start_from_teacher
from fairseq_compress.weights.configuration import set_plan
from fairseq_compress.weights.reading import read_plan

Wrap = Callable[[str, FairseqDataset], FairseqDataset]
logger = logging.getLogger(__name__)


@dataclass
class CompressedTranslationConfig(TranslationConfig):
    """Options of :class:`CompressedTranslationTask`, beside those of ``translation``."""

    autocast_dtype: ChoiceEnum(list(AUTOCAST_DTYPES)) = field(  # type: ignore[valid-type]
        default="none",
        metadata={
            "help": "run matrix products in this type (torch.autocast) in training, validation and generation; "
            "weights, gradients and optimizer stay float32. auto: bfloat16 where the processor or GPU has instructions "
            "for it, else none; emulated it is up to 20 times slower"
        },
    )
    compression_plan: Optional[str] = field(  # noqa: UP045 - fairseq makes its option of this form only
        default=None,
        metadata={
            "help": "YAML file, or name of a built-in plan such as int4: which weights and activations to compress in "
            "training (docs/quantization.md)"
        },
    )
    init_from_teacher: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "checkpoint of a transformer of the same languages and dictionaries: a new model starts from its "
            "embeddings and layers. Without effect on what --restore-file or --finetune-from-model then loads"
        },
    )
    init_layers: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "with --init-from-teacher: its layer for each layer of the model, from 0, as in 'encoder:0,2,4 "
            "decoder:0,2', or none, as in 'decoder:none'. A part that is not named: all layers, or evenly spread ones"
        },
    )
    init_widths: ChoiceEnum(list(WIDTHS)) = field(  # type: ignore[valid-type]
        default="refuse",
        metadata={
            "help": "with --init-from-teacher, where the model is narrower: refuse; take leading slices of weights; "
            "or project the residual stream on the main directions of the teacher's embeddings (svd), slices elsewhere"
        },
    )
    init_teacher_data: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "folder with the dict.LANG.txt of --init-from-teacher, if they are neither beside it nor in the "
            "data folder that it names"
        },
    )


@dataclass
class TrainingState:
    """Where a training is, for criterions that follow a schedule, and what they ask of the optimizer."""

    update: int = 0
    """Updates made so far."""
    epoch: int = 1
    counts: bool = True
    """False in a batch of nothing, with which a process keeps up with the others."""
    ended: int | None = None
    """The number of the update whose optimizer step came last."""
    rates: dict[nn.Parameter, float] = field(default_factory=dict)
    """Factors of the learning rate in the next step, for parameters that are to move less; 0 freezes them."""
    first: Transfer = field(default_factory=Transfer)
    """The training's first phase, where it has one: what follows has a fresh optimizer and schedule."""


@register_task("compressed_translation", dataclass=CompressedTranslationConfig)
class CompressedTranslationTask(TranslationTask):
    """Stock translation, with ``--autocast-dtype`` for CPU and GPU (fairseq's ``--bf16 --cpu`` crashes).

    A resumed run sees the batches of an uninterrupted one: they are cut again for each epoch, from seed and epoch.
    fairseq cuts them once, from the seed and the epoch in which a run happened to start.
    """

    def __init__(self, cfg: Any, src_dict: Dictionary, tgt_dict: Dictionary) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        if (buckets := getattr(cfg, "num_batch_buckets", 0)) and not hasattr(np, "compat"):
            raise ConfigError(
                f"--num-batch-buckets: must be 0, fairseq cannot make them with numpy {np.__version__}, got {buckets}"
            )
        self._wraps: list[Wrap] = []
        self._student: Callable[[], Any] = lambda: None
        self.training = TrainingState()
        self.from_teacher: frozenset[str] | None = None
        self.resolved_options: dict[str, Any] = {}
        self._trained_with: str | None = None  # --autocast-dtype of the checkpoint that a training resumes from
        with open_dict(cfg) if isinstance(cfg, DictConfig) else nullcontext():
            cfg.rebuild_batches = True  # get_batch_iterator reads it; an option of a few other tasks

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build the model, compressed by ``--compression-plan``, or as it was in the checkpoint.

        A new one starts from the weights of ``--init-from-teacher``.

        Raises:
            ConfigError: the plan breaks a rule, or does not fit the model; or the teacher does not.
            CheckpointError: the teacher cannot be loaded.
        """
        path = getattr(self.cfg, "compression_plan", None)
        if path and not from_checkpoint:
            set_plan(cfg, read_plan(path))
        model = super().build_model(cfg, from_checkpoint)
        # Of a model from a checkpoint it is not known.
        self.from_teacher = None
        if not from_checkpoint:
            self.from_teacher = start_from_teacher(model, self, getattr(cfg, "finetune_from_model", None))
        self._student = weakref.ref(model)
        return model

    def learning_rate_of_phase(self, update: int) -> tuple[int, float | None]:
        """What :func:`fairseq_compress.compat.schedules.patch_phases` asks for.

        Returns:
            The updates that the scheduler is to know of, and in the training's first phase the part of ``--lr``.
        """
        first = self.training.first
        return max(0, update - first.updates), first.rate(update) if update < first.updates else None

    @property
    def student(self) -> Any:
        """The model that was built last, None before: criterions learn from it what the trainer does not tell them."""
        return self._student()

    def begin_epoch(self, epoch: int, model: Any) -> None:
        super().begin_epoch(epoch, model)
        self.training.epoch = epoch

    def wrap_datasets(self, wrap: Wrap) -> None:
        """Replace every dataset, also those that are loaded later, by ``wrap(split, dataset)``.

        For criterions that need more in a batch than fairseq puts there; several wraps apply in their order.
        """
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
        self.training.update, self.training.counts = update_num, not ignore_grad
        self._tell_autocast(sample, model)
        # Autocast must end before the backward pass, which runs inside fairseq's train_step: so it wraps the criterion.
        with unobserved() if ignore_grad else nullcontext():
            return super().train_step(
                sample, model, self._under_autocast(criterion), optimizer, update_num, ignore_grad
            )

    def drop_frozen_gradients(self) -> None:
        """Parameters whose rate is 0 have no part in the norm of the gradient, in moments and in weight decay."""
        for parameter, rate in self.training.rates.items():
            if rate == 0:
                parameter.grad = None

    def optimizer_step(self, optimizer: Any, model: Any, update_num: int) -> None:
        """One step; parameters in ``training.rates`` go that fraction of their way, as with a smaller learning rate.

        The first step after the training's first phase is that of a new optimizer. This follows from the number of the
        update alone, so a resumed training needs no other state. The step ends the update for the ranges of quantized
        activations too.
        """
        if self.training.first.updates and update_num == self.training.first.updates:
            reset_optimizer(optimizer)
        self.drop_frozen_gradients()
        before = {parameter: parameter.detach().clone() for parameter, rate in self.training.rates.items() if rate > 0}
        super().optimizer_step(optimizer, model, update_num)
        with torch.no_grad():
            for parameter, old in before.items():
                parameter.copy_(torch.lerp(old, parameter, self.training.rates[parameter]))
        step_ranges(model, again=update_num == self.training.ended)
        self.training.ended = update_num

    def valid_step(self, sample: Any, model: Any, criterion: Any) -> Any:
        return super().valid_step(sample, model, self._under_autocast(criterion))

    def inference_step(
        self,
        generator: Any,
        models: Any,
        sample: Any,
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
    ) -> Any:
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
        # A checkpoint of stock fairseq has no such option.
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
        """Say so once if a training resumes in another type than it had; results will differ in their last digits."""
        now = self._autocast_dtype(sample, model)
        if self._trained_with not in (None, now):
            logger.warning(f"--autocast-dtype: {now} from here, this training had {self._trained_with} so far")
        self._trained_with = None

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().state_dict()
        given = str(getattr(self.cfg, "autocast_dtype", "none"))
        return state | {"autocast_dtype": self.resolved_options.get("autocast_dtype", given)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._trained_with = state_dict.get("autocast_dtype")
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "autocast_dtype"})
