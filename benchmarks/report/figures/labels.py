"""Labels that do not overlap: in a column next to the axes, connected by thin lines, or near their points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.transforms import Bbox, blended_transform_factory

FONT_SIZE = 8.0
_LINE = 1.4 * FONT_SIZE / 72  # height of a label, in inches
_GAP = 0.2  # between the axes and a column of labels, in inches


@dataclass(frozen=True)
class Label:
    """A text, faint or not, for the point at `x`, `y`, in data units; colour of the line between the two."""

    x: float
    y: float
    text: str
    colour: Any
    faint: bool = False


def stack(heights: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Return heights at least `gap` apart, in the same order, as near to the given ones as the ends allow.

    Those that are too near move apart about their mean; where there is no room for all, the gap shrinks.
    """
    given = np.asarray(heights, dtype=float)
    gap = min(gap, (high - low) / max(1, len(given) - 1))
    order, steps = np.argsort(given, kind="stable"), gap * np.arange(len(given))
    # With the gaps taken out this is a regression by a rising function: neighbours that would swap share their mean.
    groups: list[list[float]] = []
    for height in given[order] - steps:
        groups.append([height])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    level = [float(np.mean(group)) for group in groups for _ in group]
    moved = np.empty_like(given)
    moved[order] = np.clip(level, low, high - gap * max(0, len(given) - 1)) + steps
    return moved


def label_column(ax: Axes, labels: Sequence[Label], side: Literal["left", "right"]) -> None:
    """Write the labels in a column next to the axes, by height, each connected with its point."""
    figure = _figure(ax)
    box, (left, right), (low, high) = ax.get_window_extent(), ax.get_xlim(), ax.get_ylim()
    gap = _LINE * figure.dpi / box.height * (high - low)
    beyond = _GAP * figure.dpi / box.width
    sign, align = (-1, "right") if side == "left" else (1, "left")
    edge = -beyond if side == "left" else 1 + beyond
    transform = blended_transform_factory(ax.transAxes, ax.transData)
    heights = stack([label.y for label in labels], gap, low + gap / 2, high - gap / 2)
    for label, height in zip(labels, heights, strict=True):
        across = [(label.x - left) / (right - left), edge - sign * 0.8 * beyond, edge]
        line: dict[str, Any] = {"color": label.colour, "linewidth": 0.9, "alpha": 0.8, "zorder": 1.8}
        ax.plot(across, [label.y, height, height], transform=transform, clip_on=False, **line)
        start = edge + sign * 0.15 * beyond
        how: dict[str, Any] = {"fontsize": FONT_SIZE} | ({"color": "#767676"} if label.faint else {})
        ax.text(start, height, label.text, transform=transform, ha=align, va="center", **how)


# Where the nearest corner or edge of a label may stand, in points from its point, and in which direction it extends.
_NEAR = [(0, 7), (0, -7), (8, 0), (-8, 0), (5, 5), (-5, 5), (5, -5), (-5, -5)]
_HALO = [Stroke(linewidth=2, foreground="white"), Normal()]
_WAYS = [(0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
_FAR = [(x * far, y * far) for far in (14, 22, 30, 40, 50, 60) for x, y in _WAYS]


def label_near(ax: Axes, labels: Sequence[Label], taken: Sequence[tuple[float, float]]) -> None:
    """Write each label at the first place near its point where it hides nothing; a thin line where that is far.

    `taken`: further points, in data units, that no label may hide.
    """
    figure = _figure(ax)
    renderer, scale = FigureCanvasAgg(figure).get_renderer(), figure.dpi / 72
    points = [(label.x, label.y) for label in labels]
    centres = ax.transData.transform(np.reshape([*points, *taken], (-1, 2)))
    boxes = [Bbox.from_extents(x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale) for x, y in centres]
    room = ax.get_window_extent()
    for label, centre in zip(labels, centres, strict=False):
        how: dict[str, Any] = {"textcoords": "offset points", "fontsize": FONT_SIZE - 0.8}
        text = ax.annotate(label.text, (label.x, label.y), (0, 0), path_effects=_HALO, **how)
        size = np.array([text.get_window_extent(renderer).width, text.get_window_extent(renderer).height])
        found = []
        for place in [*_NEAR, *_FAR]:
            corner = centre + scale * np.array(place) + (np.sign(place) - 1) / 2 * size
            box = Bbox.from_bounds(*corner, *size)
            within = room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1
            found.append((box.count_overlaps(boxes) + 2 * (not within), place, box))
        _, place, box = min(found, key=lambda each: each[0])
        boxes.append(box)
        text.set(position=((box.x0, box.y0) - centre) / scale, ha="left", va="bottom")
        if place in _FAR:
            end = ax.transData.inverted().transform(np.clip(centre, box.min, box.max))
            ax.plot([label.x, end[0]], [label.y, end[1]], color=label.colour, linewidth=0.8, alpha=0.8, zorder=1.8)


def _figure(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure
