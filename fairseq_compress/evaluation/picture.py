"""The picture of a report: BLEU against the size of the model and against its speed."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from fairseq_compress.evaluation.records import Record, fact, speed_of, weight_bytes

WIDTH_INCHES, HEIGHT_INCHES, DOTS_PER_INCH = 12.0, 5.2, 150
NOTE_CHARACTERS = 130
COLORS = [f"C{index}" for index in range(10)]

# Where a label may go around its point, the best places first: degrees, counter-clockwise from the right.
LABEL_ANGLES = (0, 180, 90, 270, 45, 315, 135, 225)
LABEL_DISTANCES = (9, 18, 28, 40, 56, 76)  # points
LEADER_FROM = 20  # a label farther away than this gets a line to its point
LABEL_PADDING = 2  # pixels of air around every label


@dataclass(frozen=True)
class Point:
    """One system in the picture."""

    name: str
    bleu: float
    megabytes: float | None  # of the weights, 10^6 bytes; None: not measured
    sentences_per_second: float | None
    is_teacher: bool = False


def point_of(record: Record) -> Point:
    """The system of a record."""
    size, speed = weight_bytes(record), speed_of(record)
    megabytes = None if size is None else size / 1e6
    is_teacher = fact(record, "role") == "teacher"
    return Point(record["name"], record["bleu"]["score"], megabytes, speed and speed[0], is_teacher)


class _Mark(NamedTuple):
    """A system in one panel."""

    name: str
    at: tuple[float, float]
    color: str
    is_teacher: bool


def draw_comparison(points: Sequence[Point], title: str, note: str | None, file: IO[bytes]) -> None:
    """Write a PNG with two panels to ``file``. The same points give the same bytes (with one version of matplotlib)."""
    with style.context("default"):  # whatever the user's matplotlibrc says
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DOTS_PER_INCH)
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.06, ha="left", fontsize=14, fontweight="bold")
        if note:
            figure.text(0.06, 0.91, textwrap.fill(note, NOTE_CHARACTERS), va="top", fontsize=10, color="firebrick")
        size, speed = figure.subplots(1, 2, sharey=True)
        figure.subplots_adjust(left=0.06, right=0.985, bottom=0.11, top=0.80 if note else 0.88, wspace=0.07)
        size.set_ylabel("BLEU")
        size.set_xlabel("size of the weights (MB, log scale)")
        speed.set_xlabel("speed (sentences per second)")
        _scale_axes(size, speed, points)
        _draw_panel(size, _marks(points, [point.megabytes for point in points]))
        _draw_panel(speed, _marks(points, [point.sentences_per_second for point in points]))
        figure.savefig(file, format="png", metadata={"Software": None})


def _marks(points: Sequence[Point], values: Sequence[float | None]) -> list[_Mark]:
    """One mark for every measured value; a system has the same color in both panels."""
    return [
        _Mark(point.name, (value, point.bleu), COLORS[index % len(COLORS)], point.is_teacher)
        for index, (point, value) in enumerate(zip(points, values, strict=True))
        if value is not None
    ]


def _scale_axes(size: Axes, speed: Axes, points: Sequence[Point]) -> None:
    """Limits with room for labels; BLEU is not drawn from 0, but never over less than 4 points."""
    scores = [point.bleu for point in points]
    spread = max(scores) - min(scores)
    margin = max(0.15 * spread, 2.0 - spread / 2)
    size.set_ylim(min(scores) - margin, max(scores) + margin)
    if sizes := [point.megabytes for point in points if point.megabytes is not None]:
        size.set_xscale("log")
        size.set_xlim(min(sizes) / 2, max(sizes) * 2)
        size.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        size.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        size.xaxis.set_minor_formatter(NullFormatter())
    if speeds := [point.sentences_per_second for point in points if point.sentences_per_second is not None]:
        speed.set_xlim(0, max(speeds) * 1.25)


def _draw_panel(axes: Axes, marks: Sequence[_Mark]) -> None:
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for mark in marks:
        shape, size = ("*", 170) if mark.is_teacher else ("o", 60)
        axes.scatter(*mark.at, s=size, marker=shape, color=mark.color, zorder=3)
    if not marks:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="0.4")
        axes.set_xticks([])
    taken = [Bbox.from_bounds(x - 12, y - 12, 24, 24) for x, y in (axes.transData.transform(m.at) for m in marks)]
    for mark in marks:
        taken.append(_place_label(axes, mark, taken))


def _place_label(axes: Axes, mark: _Mark, taken: Sequence[Bbox]) -> Bbox:
    """Write the name of a system next to its point, where it overlaps no other name, no point and no edge."""
    text = axes.annotate(mark.name, mark.at, (0, 0), textcoords="offset points", fontsize=10, color=mark.color)
    places = [(distance, math.radians(angle)) for distance in LABEL_DISTANCES for angle in LABEL_ANGLES]
    for distance, angle in [*places, places[0]]:  # the last: there is no room
        x, y = distance * math.cos(angle), distance * math.sin(angle)
        text.set_position((x, y))
        text.set_horizontalalignment("center" if abs(x) < 1 else "left" if x > 0 else "right")
        text.set_verticalalignment("center" if abs(y) < 1 else "bottom" if y > 0 else "top")
        box = text.get_window_extent().padded(LABEL_PADDING)
        inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
        if inside and not any(box.overlaps(other) for other in taken):
            break
    if distance > LEADER_FROM:
        leader = {"arrowstyle": "-", "color": mark.color, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3}
        axes.annotate("", mark.at, (x, y), textcoords="offset points", arrowprops=leader)
    return box
