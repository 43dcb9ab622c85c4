"""What a low-rank model is made from: the dense weights of a checkpoint, and its configuration with ranks inside."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from fairseq.data import Dictionary
from fairseq.models import BaseFairseqModel
from omegaconf import DictConfig
from torch import Tensor, nn

from fairseq_compress.architecture.flags import KEY
from fairseq_compress.checkpoint.average import is_parameter
from fairseq_compress.checkpoint.load import build_model, dictionaries_of, load_upgraded, new_model
from fairseq_compress.errors import CheckpointError, ConfigError
from fairseq_compress.modules.activation_quantizer import remove_quantizers
from fairseq_compress.modules.structured import structured_modules
from fairseq_compress.selection import select
from fairseq_compress.weights.configuration import set_options, set_plan
from fairseq_compress.weights.groups import effective_state, weight_groups
from fairseq_compress.weights.rules import Plan

LAYERS, TABLE = ".layers.", "embed_tokens"

Shape = tuple[int, int]
Names = tuple[str, ...]
"""Of all modules that share a weight."""


class DenseModel(NamedTuple):
    """A trained model of dense layers."""

    path: str | os.PathLike[str]
    state: dict[str, Any]
    """The whole dictionary of the checkpoint."""
    cfg: DictConfig
    """Without a compression plan."""
    dictionaries: tuple[Dictionary, Dictionary]
    model: BaseFairseqModel
    weights: dict[str, Tensor]
    """Of a quantized model the values x̂."""

    @property
    def convolution(self) -> bool:
        """Whether the embeddings are behind a convolution, whose narrow table stays as it is."""
        return bool(getattr(self.cfg.model, "embedding_convolution", 0))

    def weight(self, name: str) -> Tensor:
        """Of the linear layer or embedding with this name."""
        return self.weights[f"{name}.weight"]

    def shape(self, name: str) -> Shape:
        """(O, I) of a linear layer, (V, D) of an embedding."""
        rows, columns = self.weight(name).shape
        return rows, columns

    def groups(self) -> list[Names]:
        """Names of all linear layers and embeddings, in the model's order."""
        return [tuple(group.modules) for group in weight_groups(self.model)]

    def tables(self) -> list[str]:
        """The first name of each embedding table."""
        return [names[0] for names in self.groups() if any(name.endswith(TABLE) for name in names)]

    def picked(self, patterns: Sequence[str]) -> dict[str, Names]:
        """The linear layers inside of encoder and decoder layers of which a pattern picks a name, by their first names.

        Raises:
            ConfigError: a pattern picks nothing.
        """
        names: dict[str, Names] = {}
        for group in (each.modules for each in weight_groups(self.model)):
            if all(isinstance(module, nn.Linear) and LAYERS in name for name, module in group.items()):
                names |= dict.fromkeys(group, tuple(group))
        return {names[name][0]: names[name] for name in select(names, patterns, "--modules")}

    def low_rank_model(
        self, architecture: str, ranks: Mapping[Names, int], embedding_rank: int, load: bool = True
    ) -> BaseFairseqModel:
        """The model with low-rank layers; the configuration is its configuration from now on.

        Args:
            architecture: which has low-rank layers.
            ranks: of linear layers.
            embedding_rank: of all embeddings, 0 for dense ones.
            load: the closest weights, else random ones.
        """
        items = [f"{name}={rank}" for names, rank in ranks.items() for name in names]
        options: dict[str, Any] = {"linear_ranks": ",".join(items), KEY: None}
        if not self.convolution:
            options["embedding_rank"] = embedding_rank
        set_options(self.cfg.model, {"_name": architecture, "arch": architecture} | options)
        if not load:
            return new_model(self.path, self.cfg, *self.dictionaries)
        return build_model(self.path, {"model": self.weights}, self.cfg, *self.dictionaries)


def read_dense(path: str | os.PathLike[str]) -> DenseModel:
    """The model of a checkpoint, packed or not.

    Raises:
        CheckpointError: the file cannot be loaded, or holds NaN or infinity.
        ConfigError: a layer is low-rank, sparse or a tensor train already.
    """
    state, cfg = load_upgraded(path)
    dictionaries = dictionaries_of(state["model"])
    model = build_model(path, state, cfg, *dictionaries)
    structured = [f"{name} is a {type(module).__name__}" for name, module in structured_modules(model).items()]
    if structured:
        raise ConfigError(f"--checkpoint {path}: must have dense layers, got a model in which {structured[0]}")
    remove_quantizers(model)
    weights = effective_state(model)
    for key, weight in weights.items():
        if is_parameter(key, weight) and not torch.isfinite(weight).all():
            raise CheckpointError(f"checkpoint {path}: weight {key} holds NaN or infinity; the training diverged")
    set_plan(cfg.model, Plan())
    return DenseModel(path, state, cfg, dictionaries, model, weights)
