"""Task ``compressed_translation``: fairseq's translation and what compression needs beside it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.data import Dictionary, FairseqDataset
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import DictConfig, open_dict
from torch import Tensor

from fairseq_compress.plans.configuration import set_plan
from fairseq_compress.plans.reading import read_plan

Wrap = Callable[[str, FairseqDataset], FairseqDataset]
# No float16: it needs its gradients scaled, which is what fairseq's own --fp16 does.
AUTOCAST_DTYPES = {"none": None, "bfloat16": torch.bfloat16}


@dataclass
class CompressedTranslationConfig(TranslationConfig):
    """Options of :class:`CompressedTranslationTask`, beside those of ``translation``."""

    autocast_dtype: ChoiceEnum(list(AUTOCAST_DTYPES)) = field(  # type: ignore[valid-type]
        default="none",
        metadata={
            "help": "run matrix products in this type (torch.autocast) in training, validation and generation; "
            "weights, gradients and optimizer stay float32. On a CPU with bfloat16 instructions: faster"
        },
    )
    compression_plan: Optional[str] = field(  # noqa: UP045 - fairseq makes its option of this form only
        default=None,
        metadata={"help": "YAML file: which weights and activations to compress in training (docs/quantization.md)"},
    )


@register_task("compressed_translation", dataclass=CompressedTranslationConfig)
class CompressedTranslationTask(TranslationTask):
    """Stock translation, with ``--autocast-dtype`` for CPU and GPU (fairseq's ``--bf16 --cpu`` crashes).

    A resumed run sees the batches of an uninterrupted one: they are cut anew for each epoch, from seed and epoch.
    fairseq cuts them once, from the seed and the epoch in which a run happened to start.
    """

    def __init__(self, cfg: Any, src_dict: Dictionary, tgt_dict: Dictionary) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self._wraps: list[Wrap] = []
        with open_dict(cfg) if isinstance(cfg, DictConfig) else nullcontext():
            cfg.rebuild_batches = True  # get_batch_iterator reads it; an option of a few other tasks

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build the model, compressed by ``--compression-plan``, or as it was in the checkpoint.

        Raises:
            ConfigError: the plan breaks a rule, or does not fit the model.
        """
        path = getattr(self.cfg, "compression_plan", None)
        if path and not from_checkpoint:
            set_plan(cfg, read_plan(path))
        return super().build_model(cfg, from_checkpoint)

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
        # Autocast must end before the backward pass, which runs inside fairseq's train_step: so it wraps the criterion.
        return super().train_step(sample, model, self._under_autocast(criterion), optimizer, update_num, ignore_grad)

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
        with self._autocast(sample["net_input"]["src_tokens"].device):
            return super().inference_step(generator, models, sample, prefix_tokens, constraints)

    def _under_autocast(self, criterion: Any) -> Any:
        def forward(model: Any, sample: Any) -> Any:
            with self._autocast(sample["net_input"]["src_tokens"].device):
                return criterion(model, sample)

        return forward

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        # A checkpoint of stock fairseq has no such option.
        dtype = AUTOCAST_DTYPES[str(getattr(self.cfg, "autocast_dtype", "none"))]
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
