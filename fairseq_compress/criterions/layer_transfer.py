"""What terms of hidden states share: teacher, layer map, maps between the two models, and phases."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn

from fairseq_compress.criterions.terms.layers import Fit, LayerTerm
from fairseq_compress.criterions.terms.term import Batch
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import (
    PARTS,
    Moment,
    Pair,
    Transfer,
    even_layers,
    layer_map_problems,
    pairs_of,
    read_layer_map,
)
from fairseq_compress.models.layer_recorder import Sizes, recording, sizes_of
from fairseq_compress.models.student_output import unwrapped
from fairseq_compress.modules.layer_maps import LayerMaps
from fairseq_compress.options import raise_problems
from fairseq_compress.surgery.plain_parameters import plain_shapes
from fairseq_compress.teachers.frozen import FrozenTeachers, dropout_modules


class LayerTransfer:
    """Records hidden states of student and teacher for the terms of a criterion, and schedules its phases.

    Args:
        cfg: options of the criterion, with those of :class:`.terms.layers.TransferOptions`.
        terms: those with a weight.
        teachers: those of the word-level term; None to load the teacher here.
    """

    def __init__(self, cfg: Any, task: Any, terms: Sequence[LayerTerm], teachers: FrozenTeachers | None) -> None:
        self.cfg, self.task, self.terms = cfg, task, terms
        self.teacher = teachers or FrozenTeachers(cfg.teacher_path or "", task, cfg.teacher_data)
        self._runs_alone = teachers is None
        student, teacher = sizes_of(task.student), sizes_of(self.teacher.models[0])
        layers = {part: even_layers(student.layers[part], teacher.layers[part]) for part in PARTS}
        given = layers if cfg.layer_map is None else read_layer_map(cfg.layer_map)
        fit = Fit(student, teacher, pairs_of(given))
        rules = (term.teacher_problems(fit) for term in terms)
        raise_problems([*_map_problems(cfg, student, teacher), *chain.from_iterable(rules)])
        self.transfer = _transfer_of(cfg, fit, terms)
        widths: dict[str, tuple[int, int]] = {}
        for term in sorted(terms, key=lambda term: term.at_output):
            widths.update(term.widths(fit))
        self.maps = LayerMaps(widths, {name: sizes for term in terms for name, sizes in term.heads(fit).items()})
        for term in terms:
            term.fit, term.transfer, term.maps = fit, self.transfer, self.maps
        if self.transfer.updates:
            task.learning_rates.begin_with(self.transfer.updates, self.transfer.rate)
            _group_rates(task, self.transfer, cfg.transfer_lower_lr)

    @property
    def module(self) -> tuple[str, nn.Module]:
        """Parameters that are trained with the student."""
        return "maps", self.maps

    @contextmanager
    def recording(self, batch: Batch) -> Iterator[None]:
        """Record what the terms need of both models, which run inside the ``with``, into ``batch``."""
        batch.now = self.transfer.at(self.task.clock.update) if batch.training else self.transfer.last
        batch.seen = batch.now if batch.training else self.transfer.whole
        if batch.training and self.transfer.updates:
            self._prepare(batch)
        batch.padding = {
            "encoder": batch.sample["net_input"]["src_tokens"].eq(self.task.source_dictionary.pad()),
            "decoder": batch.sample["target"].eq(self.task.target_dictionary.pad()),
        }
        student, teacher = self._sites("student", batch.seen), self._sites("teacher", batch.seen)
        with (
            recording(batch.model, **student) as batch.student,
            recording(self.teacher.models[0], **teacher) as batch.teacher,
        ):
            yield
            if self._runs_alone and any(teacher.values()):
                self.teacher.run(batch.sample, next(batch.model.parameters()).dtype)

    def _prepare(self, batch: Batch) -> None:
        """Switch off dropout in the layer phase, until the trainer's next step."""
        dtype = next(batch.model.parameters()).dtype
        if torch.finfo(dtype).bits < 32:
            raise ConfigError(
                f"--transfer {self.transfer.kind}: requires weights in float32, --amp or --autocast-dtype and not "
                f"--fp16 or --bf16, got {dtype}"
            )
        for module in () if batch.now.output else dropout_modules(batch.model):
            module.training = False

    def _sites(self, side: str, seen: Moment) -> dict[str, Any]:
        found: dict[str, Any] = {"layers": set(), "attention": set(), "last": False}
        for term in self.terms:
            for name, sites in term.sites(side, seen).items():
                found[name] |= sites if name == "last" else set(sites)
        return {name: sites if name == "last" else sorted(sites) for name, sites in found.items()}


def transfer_problems(cfg: Any, task: Any, kinds: Sequence[type[LayerTerm]]) -> Iterator[str]:
    """Rules that need no teacher: of the options, and of the student if any term has a weight."""
    counting = [kind for kind in kinds if kind.counts(cfg)]
    if cfg.layer_map is not None and not any(kind.uses_layer_map(cfg) for kind in counting):
        yield f"--layer-map: requires weights above 0 of features, or of attention by group, got {cfg.layer_map!r}"
    try:
        if cfg.layer_map is not None:
            read_layer_map(cfg.layer_map)
    except ValueError:
        yield f"--layer-map: must be as in 'encoder:1,3,5 decoder:2,-', with both parts, got {cfg.layer_map!r}"
    yield from _phase_problems(cfg, kinds, [kind for kind in counting if not kind.at_output])
    if counting:
        yield from _student_problems(cfg, task, counting)


def _phase_problems(cfg: Any, kinds: Sequence[Any], inside: Sequence[Any]) -> Iterator[str]:
    kind, updates = str(cfg.transfer), cfg.transfer_updates
    if kind == "auxiliary":
        return
    if updates < 1:
        yield f"--transfer-updates: must be at least 1 with --transfer {kind}, got {updates}"
    if not inside:
        yield f"--transfer {kind}: needs the weight of a loss of layers above 0, got 0.0"
    if not any((cfg.gold_weight, cfg.kd_weight, *(term.full_weight(cfg) for term in kinds if term.at_output))):
        yield f"--transfer {kind}: needs --gold-weight, --kd-weight or --cosine-weight above 0, got 0.0"
    if kind == "progressive" and inside and not any(term.of_outputs for term in inside):
        yield (
            "--transfer progressive: needs a weight of features above 0, as attention maps leave a part of each layer "
            "untrained that later stages would build on, got --attention-weight alone"
        )


def _student_problems(cfg: Any, task: Any, kinds: Sequence[type[LayerTerm]]) -> Iterator[str]:
    """Requirements on the student for recording its hidden states, and on its initialization."""
    student = getattr(task, "student", None)
    if student is None:
        yield "--task: must be compressed_translation, whose criterions know the student, got another one"
        return
    try:
        sizes = sizes_of(student)
    except ConfigError as error:
        yield str(error)
        return
    for part in PARTS:
        drop = getattr(getattr(unwrapped(student), part), f"{part}_layerdrop", 0)
        if drop > 0:
            yield f"--{part}-layerdrop: must be 0 where hidden states are learned, got {drop}"
    for kind in kinds:
        yield from kind.student_problems(cfg, student)
    yield from _map_problems(cfg, sizes)
    if str(cfg.transfer) != "auxiliary" and task.from_teacher is not None:
        tables = [name for name in plain_shapes(student) if ".embed_tokens." in name and name not in task.from_teacher]
        if tables:
            yield (
                f"--transfer {cfg.transfer}: requires the teacher's embeddings, which the layer phase does not train: "
                "--init-from-teacher TEACHER, with --init-layers 'encoder:none decoder:none' to copy no layer, got "
                f"{', '.join(tables)} initialized at random"
            )


def _map_problems(cfg: Any, student: Sizes, teacher: Sizes | None = None) -> Iterator[str]:
    try:
        layers = None if cfg.layer_map is None else read_layer_map(cfg.layer_map)
    except ValueError:
        return  # transfer_problems reports it
    if layers is not None:
        found = layer_map_problems(layers, student.layers, None if teacher is None else teacher.layers)
        yield from (f"--layer-map: {problem}" for problem in found)


def _transfer_of(cfg: Any, fit: Fit, terms: Sequence[LayerTerm]) -> Transfer:
    """The schedule over the pairs of layers that have a loss."""
    inside = [term for term in terms if not term.at_output]
    parts = set[str]().union(*(term.parts(cfg) for term in inside))
    pairs = tuple(pair for pair in fit.pairs if pair.part in parts)
    if inside and not pairs:
        raise ConfigError(f"--layer-map: must map a layer that a loss is asked for, got {cfg.layer_map!r}")
    if str(cfg.transfer) == "progressive" and cfg.transfer_updates < len(pairs):
        raise ConfigError(
            f"--transfer-updates: must be at least {len(pairs)}, one for each mapped layer, got {cfg.transfer_updates}"
        )
    return Transfer(str(cfg.transfer), cfg.transfer_updates, pairs)


def _group_rates(task: Any, transfer: Transfer, lower: float) -> None:
    """Set the learning rates of the layer phase, as in the official code of MobileBERT.

    A parameter has the factor 0 before the first stage that trains it, 1 in that stage, ``lower`` in later ones; always
    0 outside of layers (embeddings, last layer norms). Neither maps nor the output phase have factors.
    """
    model = unwrapped(task.student)
    frozen = dict.fromkeys(model.parameters())
    stages = [(pair,) for pair in transfer.pairs] if transfer.kind == "progressive" else [transfer.pairs]
    for number, pairs in enumerate(stages):
        if new := [parameter for parameter in dict.fromkeys(_reached(model, pairs)) if parameter in frozen]:
            frozen = {parameter: None for parameter in frozen if parameter not in set(new)}
            task.learning_rates.group(f"stage {number}", new, partial(_rate, transfer, number, lower))
    task.learning_rates.group("all but layers", frozen, partial(_rate, transfer, len(stages), lower))


def _rate(transfer: Transfer, first: int, lower: float, update: int) -> float:
    moment = transfer.at(update)
    stage = moment.stage or 0
    return 1.0 if moment.output or stage == first else lower if stage > first else 0.0


def _reached(model: Any, pairs: Sequence[Pair]) -> Iterator[nn.Parameter]:
    """Parameters that losses at the outputs of these layers train: of the layers up to them, and of the encoder's."""
    last = {pair.part: pair.student for pair in pairs}
    if "decoder" in last:
        last["encoder"] = len(model.encoder.layers)
    for part, student in last.items():
        for number, layer in enumerate(getattr(model, part).layers.children()):
            if number <= student:
                yield from layer.parameters()
