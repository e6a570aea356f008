"""The figure of deep-ensemble equivalent against cost: all costs, and the crowded range enlarged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch
from matplotlib.ticker import MaxNLocator

from benchmarks.report.figures.labels import Label, label_column, label_near
from benchmarks.report.figures.overlay import (
    CERTAIN,
    PublishedPoint,
    draw_points,
    plotted,
    point_handles,
    published_points,
)
from benchmarks.report.figures.ranges import spans
from benchmarks.report.figures.style import CONTROL_COLOUR, REFERENCE_COLOUR, LineStyle, legend, literal, open_frame
from benchmarks.report.model import Results

TITLES = {"raw": "raw NLL", "cal": "temperature-scaled NLL"}
_WIDTH, _GRID = 9.6, 6.1  # width of the figure and height of its two rows of panels, in inches
_CHARACTER = 0.058  # width of one in a label, in inches
_OVERVIEW = 2.5  # width of the panel of all costs where a part of them is enlarged, in inches
_ROOM = 2 * 15  # labels that fit on one side of two panels
_LINE = 3  # sizes of one method from which on they are connected, and named once


@dataclass(frozen=True)
class Scale:
    """The vertical axis of one kind of DEE: estimates between `floor` and `top`, censored ones in a band beyond."""

    floor: float
    top: float
    above: bool  # whether there is a band above

    @classmethod
    def of(cls, values: Sequence[float], max_size: int | None) -> Scale:
        """Let the estimates set the scale: a longer interval is cut off, with an arrow."""
        finite = [value for value in values if math.isfinite(value)]
        above = math.inf in values
        floor, top = min([1.0, *finite]), max([2.0, *finite]) * 1.15 + 0.3
        return cls(floor, max(top, float(max_size or 1)) if above else top, above)

    @property
    def strip(self) -> float:
        """Height of a band."""
        return 0.13 * (self.top - self.floor)

    @property
    def limits(self) -> tuple[float, float]:
        """Ends of the axis."""
        return self.floor - self.strip, self.top + self.strip * self.above

    @property
    def borders(self) -> tuple[float, float]:
        """Heights at which values beyond the scale are drawn."""
        return self.floor - 0.5 * self.strip, self.top + self.strip * (0.4 if self.above else -0.25)

    def decorate(self, ax: Axes, max_size: int | None) -> None:
        """Shade the bands, and say at the axis what they hold."""
        ax.axhspan(self.limits[0], self.floor, color="#f1f1f1", zorder=0)
        whole = MaxNLocator(8, integer=True).tick_values(self.floor, self.top)
        ticks = {tick: f"{tick:g}" for tick in whole if self.floor <= tick <= self.top}
        ticks[self.floor - self.strip / 2] = "< 1"
        if self.above:
            ax.axhspan(self.top, self.limits[1], color="#f1f1f1", zorder=0)
            ticks[self.top + self.strip / 2] = f"> {max_size}"
        ax.set_yticks([*ticks], [*ticks.values()])


def dee_vs_flops(results: Results, style: dict[str, LineStyle]) -> Figure:
    """Draw the deep-ensemble equivalent against relative FLOPs; deep ensembles are the diagonal.

    A row of panels for raw NLL and one for temperature-scaled: all costs, and the crowded ones enlarged.
    """
    points = published_points(results)
    whole, near = spans(results)
    figure = Figure(figsize=(_WIDTH, _GRID + 1.15))
    legend(figure, [*handles(results), *point_handles(points)])
    top = figure.get_figheight() - 0.25
    place = {"left": 0.6, "right": _WIDTH - 0.05, "bottom": top - _GRID, "top": top}
    edges = {side: at / (_WIDTH if side in ("left", "right") else top + 0.25) for side, at in place.items()}
    panels = [_Panel.of(results, points, kind, style) for kind in ("raw", "cal")]
    named = [label for panel in panels for label in panel.labels(near or whole)]
    middle = _middle([label.x for label in named]) if near else -math.inf
    columns = [column_width(label.text for label in named if (label.x > middle) == right) for right in (False, True)]
    room = _WIDTH - 0.65
    widths = (
        [_OVERVIEW, columns[0], room - _OVERVIEW - sum(columns), columns[1]]
        if near
        else [room - columns[1], columns[1]]
    )
    grid = figure.add_gridspec(2, len(widths), width_ratios=widths, hspace=0.2, wspace=0, **edges)
    for row, panel in enumerate(panels):
        ax = figure.add_subplot(grid[row, 0])
        panel.draw(ax, whole, 28 if near else 50)
        ax.set_title(f"DEE on {TITLES[panel.kind]}", loc="left")
        ax.set_ylabel("deep-ensemble equivalent (members)", fontsize=9)
        if row == 1:
            ax.set_xlabel("relative FLOPs (one network = 1)", fontsize=9)
        if near is None:
            label_column(ax, panel.labels(whole), "right")
            label_near(ax, panel.ensembles(whole[1]), [])
            continue
        enlarged = figure.add_subplot(grid[row, 2])
        panel.draw(enlarged, near)
        enlarged.set_title(f"costs from {near[0]:.2f} to {near[1]:.2f}, enlarged", loc="left")
        enlarged.tick_params(labelleft=False)
        if row == 1:
            enlarged.set_xlabel("relative FLOPs, enlarged", fontsize=9)
        _connect(ax, enlarged, panel.scale, near)
        inside = panel.labels(near)
        label_column(enlarged, [label for label in inside if label.x <= middle], "left")
        label_column(enlarged, [label for label in inside if label.x > middle], "right")
        outside = [label for label in panel.labels(whole) if label not in inside]
        label_near(ax, [*panel.ensembles(whole[1]), *outside], [(label.x, label.y) for label in inside])
    return figure


@dataclass(frozen=True)
class _Panel:
    """What one kind of DEE shows, drawn for a range of costs."""

    results: Results
    rows: pd.DataFrame
    published: list[PublishedPoint]
    points: list[PublishedPoint]  # of both kinds: a marker means the same in both
    kind: str
    style: dict[str, LineStyle]
    scale: Scale

    @classmethod
    def of(cls, results: Results, points: list[PublishedPoint], kind: str, style: dict[str, LineStyle]) -> _Panel:
        rows = results.others[np.isfinite(results.others["macs_rel"]) & results.others[f"dee_{kind}"].notna()]
        published = [point for point in plotted(points) if point.kind == kind]
        scale = Scale.of([*rows[f"dee_{kind}"], *(point.y for point in published)], results.max_size)
        return cls(results, rows, published, points, kind, style, scale)

    def draw(self, ax: Axes, span: tuple[float, float], area: float = 50) -> None:
        scale = self.scale
        ax.set(xlim=span, ylim=scale.limits)
        end = min(span[1], scale.top)
        ax.plot([1, end], [1, end], color=REFERENCE_COLOUR, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        sizes = self.results.reference["size"]
        sizes = sizes[sizes <= end]
        ax.plot(sizes, sizes, "o", color=REFERENCE_COLOUR, markersize=5, zorder=2)
        controls = self.rows[self.rows["control"]]
        y = np.clip(controls[f"dee_{self.kind}"], *scale.borders)
        ax.plot(controls["macs_rel"], y, ".", color=CONTROL_COLOUR, alpha=0.6, markersize=5, zorder=1.5)
        self._methods(ax, span, area)
        draw_points(ax, self.points, self.kind, area)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=span[1] > 4, steps=[1, 2, 2.5, 5, 10]))
        scale.decorate(ax, self.results.max_size)
        open_frame(ax)

    def _methods(self, ax: Axes, span: tuple[float, float], area: float) -> None:
        rows = self.rows[~self.rows["control"] & self.rows["macs_rel"].between(*span)]
        value, low, high = (rows[f"dee_{self.kind}{end}"].to_numpy() for end in ("", "_low", "_high"))
        bottom, top = self.scale.borders
        y, y_low, y_high = (np.clip(end, bottom, top) for end in (value, low, high))
        x = rows["macs_rel"].to_numpy(dtype=float)
        widths = _widths(x, y_high - y_low, float(np.ptp(span)))
        for label, line in rows.assign(height=y).groupby("label", sort=False):
            if len(line) >= _LINE:
                line, colour = line.sort_values("size"), self.style[str(label)].colour
                ax.plot(line["macs_rel"], line["height"], color=colour, lw=1, alpha=0.6, zorder=1.6)
        for i, label in enumerate(rows["label"]):
            mark = self.style[label]
            if y_low[i] < y_high[i]:
                bar: dict[str, Any] = {"color": mark.colour, "zorder": 2}
                ax.plot([x[i]] * 2, [y_low[i], y_high[i]], lw=widths[i], solid_capstyle="butt", alpha=0.45, **bar)
                ends = [end for end in (low[i], high[i]) if bottom < end < top]
                ax.plot([x[i]] * len(ends), ends, "_", markersize=7 + widths[i], markeredgewidth=1.4, **bar)
                if high[i] > top > y[i]:
                    ax.plot(x[i], top, "^", color=mark.colour, markersize=5)
            face = mark.colour if self.kind == "raw" else "white"
            dot: dict[str, Any] = {"facecolors": [face], "edgecolors": [mark.colour], "linewidths": 1.5, "alpha": 0.9}
            ax.scatter(x[i], y[i], area, marker=mark.marker, zorder=3, **dot)
            if np.isinf(value[i]):
                arrow = {"arrowstyle": "-|>", "color": mark.colour, "linewidth": 1.2, "shrinkA": 3, "shrinkB": 0}
                end = y[i] + math.copysign(0.42 * self.scale.strip, value[i])
                ax.annotate("", (x[i], end), (x[i], y[i]), arrowprops=arrow)

    def ensembles(self, end: float) -> list[Label]:
        """Name the deep ensembles on the diagonal; DE-1 stands where the methods crowd, and the axes say what 1 is."""
        sizes = self.results.reference["size"]
        return [Label(m, m, f"DE-{m}", REFERENCE_COLOUR) for m in sizes if 1 < m <= min(end, self.scale.top)]

    def labels(self, span: tuple[float, float]) -> list[Label]:
        """Name what stands in a range of costs: our methods and the published ones.

        A method of which three sizes or more stand there has one name, at the largest.
        """
        rows = self.rows[~self.rows["control"] & self.rows["macs_rel"].between(*span)]
        rows = rows.assign(height=np.clip(rows[f"dee_{self.kind}"], *self.scale.borders))
        ours = []
        for label, line in rows.groupby("label", sort=False):
            name, sizes = str(label), [f"{size}" for size in line["size"]]
            if len(line) >= _LINE:
                sizes, line = [f"{line['size'].min()} to {line['size'].max()}"], line.nlargest(1, "size")
            for x, y, size in zip(line["macs_rel"], line["height"], sizes, strict=True):
                ours.append(Label(x, y, f"{literal(name)}, {size}", self.style[name].colour))
        inside = [point for point in self.published if span[0] <= point.x <= span[1]]
        return ours + [Label(p.x, p.y, f"{literal(p.method)}, {p.size}", CERTAIN) for p in inside]


def _widths(x: np.ndarray, lengths: np.ndarray, span: float) -> np.ndarray:
    """Line widths of the intervals: of those at one cost, a longer one is thinner, so that each can be seen."""
    near = np.abs(x[:, None] - x) < 0.01 * span
    return 1.5 + 2.0 * (near & (lengths > lengths[:, None])).sum(axis=1)


def _middle(costs: Sequence[float]) -> float:
    """The cost up to which labels stand on the left: the lowest ones, and more where the right has no room."""
    ordered = np.sort(costs)
    gaps = [i for i in range(1, len(ordered)) if ordered[i] - ordered[i - 1] > 0.02 * np.ptp(ordered)]
    first = next((i for i in gaps if len(ordered) - i <= _ROOM), gaps[-1] if gaps else 0)
    return float(ordered[first - 1]) if first else -math.inf


def column_width(texts: Iterable[str]) -> float:
    """Return the width of a column of labels, in inches."""
    return _CHARACTER * max(map(len, texts), default=0) + 0.28


def _connect(whole: Axes, enlarged: Axes, scale: Scale, near: tuple[float, float]) -> None:
    """Frame the range in the panel of all costs, and lead from it to its enlargement."""
    line: dict[str, Any] = {"color": "#888888", "linewidth": 0.8, "linestyle": (0, (1, 2))}
    whole.axvspan(*near, facecolor="none", edgecolor="#888888", linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    for y in scale.limits:
        whole.figure.add_artist(
            ConnectionPatch((near[1], y), (near[0], y), "data", "data", axesA=whole, axesB=enlarged, **line)
        )


def handles(results: Results) -> list[Line2D]:
    """Return the legend's entries for what the labels do not name: the deep ensembles, and the controls."""
    found = []
    if len(results.reference):
        dashes: dict[str, Any] = {"linestyle": (0, (5, 3)), "linewidth": 1.2, "marker": "o", "markersize": 5}
        found.append(Line2D([], [], color=REFERENCE_COLOUR, label="deep ensemble (DE)", **dashes))
    if results.others["control"].any():
        dots: dict[str, Any] = {"marker": ".", "markersize": 5, "linestyle": "none"}
        found.append(Line2D([], [], color=CONTROL_COLOUR, label="controls", **dots))
    return found
