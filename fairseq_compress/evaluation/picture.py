"""The picture of a report: BLEU against the size of the weights and against speed, with the Pareto fronts."""

import itertools
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from fairseq_compress.evaluation.records import Record, fact, speed_of, weight_bytes

WIDTH_INCHES, HEIGHT_INCHES, DOTS_PER_INCH = 10.0, 4.8, 150
NOTE_CHARACTERS = 125
NAME_CHARACTERS = 32  # longer names lose their middle
LOG_SPEED_FROM = 10  # a greater ratio of the fastest to the slowest speed gets a logarithmic axis
FRONT = {"color": "0.6", "linewidth": 1.2, "linestyle": (0, (4, 2))}

# Where a label may go around its point, the best places first: degrees, counter-clockwise from the right.
LABEL_ANGLES = (0, 180, 90, 270, 45, 315, 135, 225)
LABEL_DISTANCES = (9, 18, 28, 40, 56, 76)  # points
LEADER_FROM = 12  # a label farther away than this gets a line to its point
LABEL_PADDING = 2  # pixels around every label

# The same bytes for the same points, on a white background; text of an SVG stays text.
STYLE: dict[str, Any] = {"svg.hashsalt": "fairseq-compress", "svg.fonttype": "none", "savefig.facecolor": "white"}
METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


class Kind(NamedTuple):
    """How the systems of a kind are drawn."""

    marker: str
    size: int
    color: str  # of Okabe and Ito, which color-blind readers can tell apart
    hollow: bool = False  # an export may have the size and score of its checkpoint, which then shows through


KINDS = {
    "teacher": Kind("*", 190, "#0072B2"),
    "student": Kind("o", 60, "#D55E00"),
    "exported": Kind("s", 60, "#009E73", hollow=True),
    "system": Kind("D", 48, "#555555"),
}


@dataclass(frozen=True)
class Point:
    """One system in the picture."""

    name: str
    bleu: float
    megabytes: float | None  # of the weights, 10^6 bytes; None: not measured
    sentences_per_second: float | None
    kind: str = "student"  # of KINDS


def point_of(record: Record) -> Point:
    """The system of a record; its kind is the fact ``role``, or exported where its checkpoint has a runtime."""
    size, speed = weight_bytes(record), speed_of(record)
    runtime = (record.get("checkpoint") or {}).get("runtime")
    kind = fact(record, "role") or ("exported" if runtime else "system")
    megabytes = None if size is None else size / 1e6
    return Point(
        record["name"], record["bleu"]["score"], megabytes, speed and speed[0], kind if kind in KINDS else "system"
    )


def pareto_front(
    places: Sequence[tuple[float, float]], *, smaller_is_better: bool = False
) -> list[tuple[float, float]]:
    """The points (x, y) that no other point beats in both, by ascending x; a greater y is better."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(places, key=lambda place: (place[0] if smaller_is_better else -place[0], -place[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return sorted(front)


def draw_comparison(points: Sequence[Point], title: str, note: str | None, file: IO[bytes], form: str = "png") -> None:
    """Write a PNG or SVG to ``file``. The same points give the same bytes (with one version of matplotlib)."""
    with style.context(["default", STYLE]):  # whatever the user's matplotlibrc says
        comparison_figure(points, title, note).savefig(file, format=form, metadata=METADATA[form])


def comparison_figure(points: Sequence[Point], title: str, note: str | None) -> Figure:
    """A figure with two panels: size and speed."""
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.07, y=0.97, ha="left", va="top", fontsize=14, fontweight="bold")
    lines = textwrap.wrap(note or "", NOTE_CHARACTERS)
    figure.text(0.07, 0.90, "\n".join(lines), va="top", fontsize=10, color="firebrick")
    size, speed = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.19, top=0.86 - 0.05 * len(lines), wspace=0.07)
    size.set_ylabel("BLEU", fontsize=11)
    size.set_title("quality against megabytes", fontsize=11)
    speed.set_title("quality against sentences a second", fontsize=11)
    size.set_xlabel("MB of weights (log scale): smaller is better", fontsize=11)
    speed.set_xlabel("sentences a second: more is better", fontsize=11)
    _scale_axes(size, speed, points)
    _draw_panel(size, _marks(points, [point.megabytes for point in points]), smaller_is_better=True)
    _draw_panel(speed, _marks(points, [point.sentences_per_second for point in points]), smaller_is_better=False)
    _draw_legend(figure, points)
    return figure


class _Mark(NamedTuple):
    """A system in one panel."""

    name: str
    at: tuple[float, float]
    kind: Kind


def _marks(points: Sequence[Point], values: Sequence[float | None]) -> list[_Mark]:
    """One mark for every measured value."""
    return [
        _Mark(point.name, (value, point.bleu), KINDS[point.kind])
        for point, value in zip(points, values, strict=True)
        if value is not None
    ]


def _scale_axes(size: Axes, speed: Axes, points: Sequence[Point]) -> None:
    """Limits with room for labels; BLEU is not drawn from 0, but never over less than 4 points."""
    scores = [point.bleu for point in points]
    spread = max(scores) - min(scores)
    margin = max(0.15 * spread, 2.0 - spread / 2)
    size.set_ylim(min(scores) - margin, max(scores) + margin)
    if sizes := [point.megabytes for point in points if point.megabytes is not None]:
        _scale_log(size, sizes)
    if speeds := [point.sentences_per_second for point in points if point.sentences_per_second is not None]:
        if max(speeds) > LOG_SPEED_FROM * min(speeds) > 0:
            _scale_log(speed, speeds)
            speed.set_xlabel("sentences a second (log scale): more is better", fontsize=11)
        else:
            speed.set_xlim(0, max(speeds) * 1.25)


def _scale_log(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_panel(axes: Axes, marks: Sequence[_Mark], *, smaller_is_better: bool) -> None:
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if not marks:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="0.4")
        axes.set_xticks([])
        return
    # Between two points of the front only the worse BLEU can be had: a staircase.
    xs, ys = zip(*pareto_front([mark.at for mark in marks], smaller_is_better=smaller_is_better), strict=True)
    where = "steps-post" if smaller_is_better else "steps-pre"
    axes.plot(xs, ys, drawstyle=where, label="Pareto front", zorder=2, **FRONT)  # type: ignore[arg-type]
    for name, at, kind in marks:
        face = "none" if kind.hollow else kind.color
        axes.scatter(
            *at, s=kind.size, marker=kind.marker, facecolors=face, edgecolors=kind.color, linewidths=2, label=name,
            zorder=4 if kind.hollow else 3,
        )  # fmt: skip
    places = [axes.transData.transform(mark.at) for mark in marks]
    layout = _Layout([Bbox.from_bounds(x - 12, y - 12, 24, 24) for x, y in places])
    for one, two in itertools.pairwise(zip(xs, ys, strict=True)):
        corner = (two[0], one[1]) if smaller_is_better else (one[0], two[1])
        layout.add_line(*axes.transData.transform([one, corner]))
        layout.add_line(*axes.transData.transform([corner, two]))
    for mark in marks:
        _place_label(axes, mark, layout)


class _Layout:
    """What labels avoid, in pixels."""

    def __init__(self, marks: list[Bbox]) -> None:
        self.marks, self.labels = marks, list[Bbox]()
        self.lines = list[Bbox]()  # as chains of small boxes; avoided where possible

    def add_line(self, begin: Any, end: Any) -> None:
        self.lines += _line_boxes(begin, end)

    def has_room(self, box: Bbox, leader: Sequence[Bbox], allowed: int) -> bool:
        """Whether a label fits; ``allowed`` 1: across lines, 2: also with a leader across other labels."""
        obstacles = [*self.marks, *self.labels, *([] if allowed else self.lines)]
        crossed = self.labels if allowed < 2 else ()
        return not any(box.overlaps(other) for other in obstacles) and not any(
            one.overlaps(other) for one in leader for other in crossed
        )


def _line_boxes(begin: Any, end: Any, step: float = 6.0) -> list[Bbox]:
    """Boxes of 3 pixels along a line."""
    count = int(math.dist(begin, end) / step) + 1
    places = ((begin[0] + (end[0] - begin[0]) * i / count, begin[1] + (end[1] - begin[1]) * i / count)
              for i in range(count + 1))  # fmt: skip
    return [Bbox.from_bounds(x - 1.5, y - 1.5, 3, 3) for x, y in places]


def _place_label(axes: Axes, mark: _Mark, layout: _Layout) -> Bbox:
    """Write the name of a system near its point, where it overlaps no name, point or edge, and if possible no line."""
    text = axes.annotate(_short(mark.name), mark.at, (0, 0), textcoords="offset points", fontsize=10, color="0.1")
    point, pixels = axes.transData.transform(mark.at), DOTS_PER_INCH / 72  # pixels of a typographic point
    places = [(distance, math.radians(angle)) for distance in LABEL_DISTANCES for angle in LABEL_ANGLES]
    for allowed, (distance, angle) in [*itertools.product(range(3), places), (2, places[0])]:
        x, y = distance * math.cos(angle), distance * math.sin(angle)
        text.set_position((x, y))
        text.set_horizontalalignment("center" if abs(x) < 1 else "left" if x > 0 else "right")
        text.set_verticalalignment("center" if abs(y) < 1 else "bottom" if y > 0 else "top")
        box = text.get_window_extent().padded(LABEL_PADDING)
        leader = _line_boxes(point, (point[0] + x * pixels, point[1] + y * pixels)) if distance > LEADER_FROM else []
        inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
        if inside and layout.has_room(box, leader, allowed):
            break
    layout.labels.append(box)
    layout.lines += leader
    if leader:
        arrow = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3}
        axes.annotate("", mark.at, (x, y), textcoords="offset points", arrowprops=arrow)
    return box


def _short(name: str) -> str:
    """A name without dollar signs, which would be formulas, and without the middle of a long one."""
    if len(name) > NAME_CHARACTERS:
        name = f"{name[: NAME_CHARACTERS // 2]}…{name[1 - NAME_CHARACTERS // 2 :]}"
    return name.replace("$", r"\$")


def _draw_legend(figure: Figure, points: Sequence[Point]) -> None:
    """The markers of the kinds that there are, and the line, below the panels."""
    present = [(name, kind) for name, kind in KINDS.items() if any(point.kind == name for point in points)]
    handles = [_legend_mark(name, kind) for name, kind in present]
    front = Line2D([], [], label="Pareto front: no system is better in both", **FRONT)  # type: ignore[arg-type]
    figure.legend(handles=[*handles, front], loc="lower center", ncols=len(handles) + 1, frameon=False, fontsize=10)


def _legend_mark(name: str, kind: Kind) -> Line2D:
    face = "none" if kind.hollow else kind.color
    look = {"linestyle": "", "color": kind.color, "markerfacecolor": face, "markeredgewidth": 2}
    return Line2D([], [], marker=kind.marker, markersize=kind.size**0.5, label=name, **look)  # type: ignore[arg-type]
