"""The figures of equal cost: NLL and equivalent against the cost of prediction or training, with the Pareto fronts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from benchmarks.report.figures.dee import TITLES, Scale, column_width, handles
from benchmarks.report.figures.labels import FONT_SIZE, Label, label_column
from benchmarks.report.figures.pareto import front
from benchmarks.report.figures.style import CONTROL_COLOUR, REFERENCE_COLOUR, LineStyle, legend, literal, open_frame
from benchmarks.report.model import Results

_LEAST = 1.6  # width of a panel, in inches
_WIDTH, _EDGE, _BETWEEN = 9.6, 0.62, 0.6  # of the figure, left of a panel, and between two rows of them, in inches
_FRONT: dict[str, Any] = {"color": "#222222", "linewidth": 1.3}
_COSTS = {
    "macs_rel": "relative FLOPs of a prediction (one network = 1)",
    "train_member_equivalents": "training, at most (one member = 1)",
}


def pareto_flops(results: Results, style: dict[str, LineStyle]) -> Figure:
    """Draw NLL and equivalent, raw and temperature-scaled, against what a prediction costs."""
    return _figure(results, style, "macs_rel")


def pareto_training(results: Results, style: dict[str, LineStyle]) -> Figure:
    """Draw the same against what training cost, the members that a method needs included."""
    return _figure(results, style, "train_member_equivalents")


def _figure(results: Results, style: dict[str, LineStyle], cost: str) -> Figure:
    panels = [[_Panel.of(results, cost, kind, score, style) for score in ("nll", "dee")] for kind in ("raw", "cal")]
    labels = panels[0][0].labels()
    names = column_width(label.text for label in labels) + 0.08
    width = max(_WIDTH, 2 * (_EDGE + names + _LEAST))  # long names make the figure wider
    height = max(2.7, 1.45 * FONT_SIZE / 72 * len(labels) + 0.4)
    figure = Figure(figsize=(width, 2 * height + _BETWEEN + 1.35))
    marks = [
        Line2D([], [], **_FRONT, label="Pareto front of the methods"),
        Line2D([], [], marker="o", markersize=11, linestyle="none", label="also with deep ensembles", **_ring()),
    ]
    legend(figure, [*handles(results), *marks])
    top, room = figure.get_figheight() - 0.3, width / 2 - _EDGE - names
    for row, pair in enumerate(panels):
        for column, panel in enumerate(pair):
            left, bottom = _EDGE + column * width / 2, top - (row + 1) * height - row * _BETWEEN
            box = (left / width, bottom / (top + 0.3), room / width, height / (top + 0.3))
            ax = figure.add_axes(box)
            panel.draw(ax)
            ax.set_title(panel.title, loc="left")
            if row == 1:
                ax.set_xlabel(_COSTS[cost], fontsize=9, loc="left")
            label_column(ax, panel.labels(), "right")
    return figure


def _ring() -> dict[str, Any]:
    return {"markerfacecolor": "none", "markeredgecolor": _FRONT["color"], "markeredgewidth": 1.1}


@dataclass(frozen=True)
class _Panel:
    """A score of one kind against one cost, for the methods of known cost; the ensembles are the reference."""

    rows: pd.DataFrame  # methods, then controls, then ensembles, with the columns of `of`
    cost: str
    title: str
    style: dict[str, LineStyle]
    scale: Scale | None  # of an equivalent
    max_size: int | None

    @classmethod
    def of(cls, results: Results, cost: str, kind: str, score: str, style: dict[str, LineStyle]) -> _Panel:
        name = {"raw": "nll", "cal": "cnll"}[kind] if score == "nll" else f"dee_{kind}"
        mean = f"{name}_mean" if score == "nll" else name
        rows = results.summary.assign(x=results.summary[cost], y=results.summary[mean])
        rows = rows.assign(low=rows[f"{name}_low"], high=rows[f"{name}_high"], reference=False)
        rows.loc[results.reference.index, "reference"] = True
        # An infinite equivalent stands beyond the scale; an infinite NLL has no place.
        rows = rows[np.isfinite(rows["x"]) & (np.isfinite(rows["y"]) if score == "nll" else rows["y"].notna())]
        rows["loss"] = rows["y"] if score == "nll" else -rows["y"]
        methods = ~rows["control"] & ~rows["reference"]
        rows["front"] = rows["overall"] = False
        for column, chosen in (("front", methods), ("overall", ~rows["control"])):
            rows.loc[chosen, column] = front(rows.loc[chosen, "x"].to_numpy(), rows.loc[chosen, "loss"].to_numpy())
        others = rows.loc[~rows["reference"], "y"]
        scale = None if score == "nll" else Scale.of(list(others), results.max_size)
        title = f"{'DEE on ' if score == 'dee' else ''}{TITLES[kind]}"
        return cls(rows, cost, title, style, scale, results.max_size)

    @property
    def methods(self) -> pd.DataFrame:
        return self.rows[~self.rows["control"] & ~self.rows["reference"]]

    def draw(self, ax: Axes) -> None:
        (left, right), (bottom, top) = self.span, self.limits
        if self.methods.empty:
            ax.text(0.5, 0.5, "no method's cost is known", transform=ax.transAxes, ha="center", fontsize=9)
        ax.set(xlim=(left, right), ylim=(bottom, top))
        curve = self.rows[self.rows["reference"] & self.rows["x"].between(left, right)]
        ax.plot(curve["x"], curve["y"], "o--", color=REFERENCE_COLOUR, markersize=4, linewidth=1.1, zorder=1.5)
        controls = self.rows[self.rows["control"]]
        ax.plot(controls["x"], self.height(controls["y"]), ".", color=CONTROL_COLOUR, alpha=0.6, markersize=5)
        best = self.methods[self.methods["front"]].sort_values("x")
        if len(best):
            x, y = [*best["x"], right], self.height(best["y"])
            ax.plot(x, [*y, y[-1]], drawstyle="steps-post", zorder=2.2, **_FRONT)
        for _, row in self.methods.iterrows():
            self._point(ax, row)
        rings = self.rows[self.rows["overall"] & (~self.rows["reference"] | self.rows["y"].between(bottom, top))]
        ax.plot(rings["x"], self.height(rings["y"]), "o", markersize=11, zorder=2.4, **_ring())
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=right > 6, steps=[1, 2, 2.5, 5, 10]))
        if self.scale:
            self.scale.decorate(ax, self.max_size)
        open_frame(ax)

    def _point(self, ax: Axes, row: pd.Series) -> None:
        mark = self.style[row["label"]]
        bar: dict[str, Any] = {"color": mark.colour, "zorder": 2, "alpha": 0.55, "solid_capstyle": "butt"}
        y, low, high = self.height(row[["y", "low", "high"]].astype(float))
        if low < high:
            ax.plot([row["x"]] * 2, [low, high], linewidth=1.5, **bar)
        if self.cost == "train_member_equivalents":  # what of the cost is the method's own
            ax.plot([row["train_member_equivalents_least"], row["x"]], [y, y], linewidth=1, linestyle=":", **bar)
        dot: dict[str, Any] = {"facecolors": [mark.colour], "edgecolors": ["white"], "linewidths": 0.5}
        ax.scatter(row["x"], y, 40, marker=mark.marker, zorder=3, **dot)

    def height(self, values: Any) -> np.ndarray:
        """Where values are drawn: equivalents beyond the scale stand in a band."""
        found = np.asarray(values, dtype=float)
        return found if self.scale is None else np.clip(found, *self.scale.borders)

    @property
    def span(self) -> tuple[float, float]:
        """The costs of the methods, and the first ensembles, that cost as much."""
        costs = self.methods["x"]
        low, high = min([1.0, *costs]), max([2.1, *costs])
        return low - 0.06 * (high - low), high + 0.06 * (high - low)

    @property
    def limits(self) -> tuple[float, float]:
        """Ends of the vertical axis; of NLL, those of the methods and of the ensembles that are drawn."""
        if self.scale is not None:
            return self.scale.limits
        shown = self.rows[~self.rows["control"] & self.rows["x"].between(*self.span)]
        low, high = shown["y"].min(), shown["y"].max()
        if not math.isfinite(low):
            return 0.0, 1.0
        return low - 0.08 * (high - low) - 1e-6, high + 0.08 * (high - low) + 1e-6

    def labels(self) -> list[Label]:
        """Name every method; faint what is not on the front."""
        rows = self.methods.assign(y=self.height(self.methods["y"]))
        names = [f"{literal(label)}, {size}" for label, size in zip(rows["label"], rows["size"], strict=True)]
        colours, faint = [self.style[label].colour for label in rows["label"]], ~rows["front"]
        return [Label(*each) for each in zip(rows["x"], rows["y"], names, colours, faint, strict=True)]
