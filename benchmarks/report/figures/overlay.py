"""Published points in the figure of deep-ensemble equivalent against FLOPs: black and hollow, ours are coloured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.report.figures.style import literal
from benchmarks.report.model import Results
from benchmarks.report.tables.published import DEE_KINDS, comparable, published_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# None of these is a marker of ours, see `style.MARKERS`.
MARKERS = ("v", "<", ">", "8", "o")
CERTAIN, UNCERTAIN = "#000000", "#808080"


@dataclass(frozen=True)
class PublishedPoint:
    """A published point; `y` is minus infinity for "worse than one network"."""

    kind: str  # "raw" or "cal"
    x: float
    y: float
    method: str
    paper: str
    size: int
    primary: bool

    @property
    def name(self) -> str:
        """Its name in the legend."""
        return f"published {self.method}, {self.paper}"


def published_points(results: Results) -> list[PublishedPoint]:
    """Return every published point of the families that the suite measures, of any size."""
    return [
        PublishedPoint(kind, found[0], found[1], line.kind, line.paper, line.size, found[2])
        for kind in ("raw", "cal")
        for line in published_lines(results)
        if (found := comparable(line, f"dee_{kind}"))
    ]


def plotted(points: Sequence[PublishedPoint]) -> list[PublishedPoint]:
    """Leave out those worse than one network, whose height is not known."""
    return [point for point in points if math.isfinite(point.y)]


def draw_points(ax: Axes, points: Sequence[PublishedPoint], kind: str, area: float) -> None:
    """Draw the points of one kind of DEE; dotted ones are derived or uncertain."""
    markers = _markers(points)
    for point in plotted(points):
        if point.kind == kind:
            edge: dict[str, Any] = {"edgecolors": CERTAIN, "linestyles": "-"}
            if not point.primary:
                edge = {"edgecolors": UNCERTAIN, "linestyles": (0, (1, 1))}
            shape: dict[str, Any] = {"marker": markers[point.name], "facecolors": "none", "linewidths": 1.4}
            ax.scatter(point.x, point.y, s=1.2 * area, zorder=4, **shape, **edge)


def point_handles(points: Sequence[PublishedPoint]) -> list[Any]:
    """Return the legend's entries for the points."""
    from matplotlib.lines import Line2D  # here, since captions need the points and no Matplotlib

    handles: list[Any] = [
        Line2D([], [], color=CERTAIN, marker=marker, markerfacecolor="none", linestyle="none", label=literal(name))
        for name, marker in _markers(points).items()
    ]
    if any(not point.primary for point in plotted(points)):
        label = "published, but derived or uncertain"
        handles.append(Line2D([], [], color=UNCERTAIN, linestyle=":", linewidth=1.6, label=label))
    return handles


def points_caption(results: Results) -> str:
    """Return the caption's sentences on the published points; empty if there are none."""
    points, published = published_points(results), results.published
    if not points or published is None:
        return ""
    names = {"raw": "above, raw NLL", "cal": "below, calibrated NLL"}
    papers = {kind: dict.fromkeys(point.paper for point in plotted(points) if point.kind == kind) for kind in names}
    where = "; ".join(f"{names[kind]}: {', '.join(found)}" for kind, found in papers.items() if found)
    text = (
        f" Black and hollow: published for {published.data} ({where}), with relative FLOPs and deep ensembles as in "
        "the papers; dotted: derived or uncertain."
        if where
        else ""
    )
    text += f" {DEE_KINDS}"
    below = dict.fromkeys(point.method for point in points if point.y == -math.inf)
    text += f" Not drawn, because published as worse than one network: {', '.join(below)}." if below else ""
    if published.differences:
        text += " The protocols differ: " + " ".join(f"{line.strip().rstrip('.')}." for line in published.differences)
    return text


def _markers(points: Sequence[PublishedPoint]) -> dict[str, str]:
    names = dict.fromkeys(point.name for point in plotted(points))
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}
