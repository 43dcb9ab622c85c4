"""Which layers of a student learn from which of its teacher: checked against both models, and in what order."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn

from fairseq_compress.criterions.hidden_state_options import FEATURES, attention_kinds, learns_layers, weight
from fairseq_compress.criterions.shared import Rule
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
from fairseq_compress.models.layer_recorder import KINDS, Sizes, recomputes_layers, sizes_of
from fairseq_compress.models.student_output import unwrapped
from fairseq_compress.modules.layer_maps import LayerMaps
from fairseq_compress.surgery.plain_parameters import plain_shapes


class Fit(NamedTuple):
    """A student and its teacher, side by side."""

    student: Sizes
    teacher: Sizes
    pairs: tuple[Pair, ...]


def student_rules(cfg: Any, task: Any) -> Iterator[Rule]:
    """What the student must be to be seen into, and what it must start from; not every task knows it."""
    student = getattr(task, "student", None)
    if student is None:
        yield True, "--task: must be compressed_translation, whose criterions know the student, got another one"
        return
    try:
        sizes = sizes_of(student)
    except ConfigError as error:
        yield True, str(error)
        return
    for part in PARTS:
        drop = getattr(getattr(unwrapped(student), part), f"{part}_layerdrop", 0)
        yield drop > 0, f"--{part}-layerdrop: must be 0 where hidden states are learned, got {drop}"
    kinds = attention_kinds(cfg)
    yield (
        bool(kinds) and recomputes_layers(student),
        "--checkpoint-activations: must be off with --attention-weight, whose queries and keys it throws away, got on",
    )
    yield from _kind_rules(kinds, sizes, "student")
    for problem in _map_problems(cfg, sizes):
        yield True, problem
    if str(cfg.transfer) != "auxiliary" and task.from_teacher is not None:
        tables = [name for name in plain_shapes(student) if ".embed_tokens." in name and name not in task.from_teacher]
        yield (
            bool(tables),
            f"--transfer {cfg.transfer}: requires the teacher's embeddings, which the layer phase does not train: "
            "--init-from-teacher TEACHER, with --init-layers 'encoder:none decoder:none' to copy no layer, got "
            f"{', '.join(tables)} initialized at random",
        )


def teacher_rules(cfg: Any, fit: Fit) -> Iterator[Rule]:
    """What the teacher must be for this student."""
    kinds = attention_kinds(cfg)
    yield from _kind_rules(kinds, fit.teacher, "teacher")
    for problem in _map_problems(cfg, fit.student, fit.teacher):
        yield True, problem
    parts = {pair.part for pair in fit.pairs}
    for kind in kinds if str(cfg.attention_head_map) == "group" else ():
        yield (
            KINDS[kind] not in parts,
            f"--layer-map: must map a layer of the {KINDS[kind]} with {kind} among --attention-kinds, "
            f"got {cfg.layer_map!r}",
        )
    if str(cfg.attention_head_map) == "convolution" or any(
        not sizes.heads[kind] for kind in kinds for sizes in (fit.student, fit.teacher)
    ):
        return
    for kind in kinds:
        for pair in _inside(fit, kind):
            own, other = fit.student.heads[kind][pair.student], fit.teacher.heads[kind][pair.teacher]
            yield (
                max(own, other) % min(own, other) != 0,
                f"--attention-head-map group: the teacher's {kind} attention must have a multiple or a divisor of the "
                f"student's {own} heads, got {other}",
            )


def fit_of(cfg: Any, student: Sizes, teacher: Sizes) -> Fit:
    """The pairs of ``--layer-map``, or its default."""
    if cfg.layer_map is not None:
        return Fit(student, teacher, pairs_of(read_layer_map(cfg.layer_map)))
    return Fit(
        student, teacher, pairs_of({part: even_layers(student.layers[part], teacher.layers[part]) for part in PARTS})
    )


def transfer_of(cfg: Any, fit: Fit) -> Transfer:
    """The schedule; its pairs are those with a loss of layers.

    Raises:
        ConfigError: no pair is left, or there are fewer updates than stages.
    """
    features = any(weight(cfg, term) > 0 for term in FEATURES)
    parts = set(PARTS) if features else {KINDS[kind] for kind in attention_kinds(cfg)}
    pairs = tuple(pair for pair in fit.pairs if pair.part in parts) if learns_layers(cfg) else ()
    if learns_layers(cfg) and not pairs:
        raise ConfigError(f"--layer-map: must map a layer that a loss is asked for, got {cfg.layer_map!r}")
    if str(cfg.transfer) == "progressive" and cfg.transfer_updates < len(pairs):
        raise ConfigError(
            f"--transfer-updates: must be at least {len(pairs)}, one for each mapped layer, got {cfg.transfer_updates}"
        )
    return Transfer(str(cfg.transfer), cfg.transfer_updates, pairs)


def maps_of(cfg: Any, fit: Fit) -> LayerMaps:
    """What is learned beside the student to compare the two."""
    student, teacher = fit.student, fit.teacher
    widths = {}
    if any(weight(cfg, term) > 0 for term in FEATURES):
        widths = {name_of(pair): (student.widths[pair.part], teacher.widths[pair.part]) for pair in fit.pairs}
    if cfg.cosine_weight > 0:
        widths |= {f"{part}_last": (student.last[part], teacher.last[part]) for part in PARTS}
    kinds = attention_kinds(cfg) if str(cfg.attention_head_map) == "convolution" else ()
    return LayerMaps(widths, {kind: (sum(student.heads[kind]), sum(teacher.heads[kind])) for kind in kinds})


def name_of(pair: Pair) -> str:
    """The name of a pair's linear map."""
    return f"{pair.part}_{pair.student}"


def rates(model: nn.Module, transfer: Transfer, moment: Moment, lower: float) -> dict[nn.Parameter, float]:
    """Factors of the learning rate in an update, for parameters of the student that are not at 1.

    In the layer phase, as in the official code of MobileBERT: 0 outside of layers (embeddings, last layer norms) and in
    layers that no stage has reached yet, ``lower`` in those that earlier stages have trained.
    """
    if moment.output:
        return {}
    inner = unwrapped(model)
    found = dict.fromkeys(inner.parameters(), 0.0)
    found |= dict.fromkeys(_reached(inner, moment.pairs), 1.0)
    if moment.stage:
        found |= dict.fromkeys(_reached(inner, transfer.pairs[: moment.stage]), lower)
    return {parameter: rate for parameter, rate in found.items() if rate != 1.0}


def _reached(model: Any, pairs: Sequence[Pair]) -> Iterator[nn.Parameter]:
    """What losses at the outputs of these layers train: the layers up to them; for the decoder also the encoder's."""
    last = {pair.part: pair.student for pair in pairs}
    if "decoder" in last:
        last["encoder"] = len(model.encoder.layers)
    for part, student in last.items():
        for number, layer in enumerate(getattr(model, part).layers.children()):
            if number <= student:
                yield from layer.parameters()


def _inside(fit: Fit, kind: str) -> Iterator[Pair]:
    """The pairs in which a kind of attention is, and that both models have."""
    own, other = len(fit.student.heads[kind]), len(fit.teacher.heads[kind])
    for pair in fit.pairs:
        if pair.part == KINDS[kind] and pair.student < own and pair.teacher < other:
            yield pair


def _kind_rules(kinds: tuple[str, ...], sizes: Sizes, who: str) -> Iterator[Rule]:
    for kind in kinds:
        yield (
            not sizes.heads.get(kind, [0]),
            f"--attention-kinds: the {who} must have attention of each kind, got no {kind}",
        )


def _map_problems(cfg: Any, student: Sizes, teacher: Sizes | None = None) -> list[str]:
    if cfg.layer_map is None:
        return []
    try:
        layers = read_layer_map(cfg.layer_map)
    except ValueError:
        return []  # told by the rules of the options
    found = layer_map_problems(layers, student.layers, None if teacher is None else teacher.layers)
    return [f"--layer-map: {problem}" for problem in found]
