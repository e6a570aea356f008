"""The figure of shifted images: scores and deep-ensemble equivalents against the severity of corruptions."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report.figures.diagnostics import line_handle, representative_lines
from benchmarks.report.figures.style import LineStyle, legend, open_frame
from benchmarks.report.model import Results
from benchmarks.report.tables.shift import CLEAN, MEAN, Values, levels

_PANELS = {"acc": "accuracy (%)", "nll": "NLL", "ece": "ECE (%)", "dee_raw": "DEE on NLL"}


def severity(results: Results, style: dict[str, LineStyle]) -> Figure:
    """Draw accuracy, NLL, ECE and DEE against severity, the mean over corruptions: a line a method."""
    assert results.shifts is not None
    figure = Figure(figsize=(8.6, 6.4), layout="constrained")
    values, at = Values(results.shifts), [0, *levels(results)]
    lines = representative_lines(results, style)
    for ax, (metric, title) in zip(figure.subplots(2, 2).ravel(), _PANELS.items(), strict=True):
        for place, (method, (mark, dash)) in enumerate(lines.items()):
            if metric != "dee_raw" or not mark.reference:  # the reference is worth its size everywhere
                nudge = 0.03 * (place - (len(lines) - 1) / 2)
                found = [values.of(method, MEAN if level else CLEAN, level, metric) for level in at]
                _line(
                    ax,
                    np.array(at) + nudge,
                    np.array(found) * (100 if metric in ("acc", "ece") else 1),
                    mark,
                    dash,
                )
        if metric == "dee_raw" and results.max_size:
            ax.set_ylim(0.5, results.max_size + 0.5)
            ax.axhline(1, color="#888888", linewidth=0.8)
        ax.set(title=title, xticks=at, xlabel="severity (0: clean)")
        open_frame(ax)
    legend(figure, [line_handle(*method, *look) for method, look in lines.items()])
    return figure


def _line(ax: Axes, x: np.ndarray, found: np.ndarray, mark: LineStyle, dash: Any) -> None:
    mean, low, high = found.T
    for end, (height, arrow) in {np.inf: (0.96, r"$\uparrow$"), -np.inf: (0.04, r"$\downarrow$")}.items():
        at = x[mean == end]  # beyond the ensembles
        beyond: Any = {"marker": arrow, "linestyle": "", "markersize": 11, "transform": ax.get_xaxis_transform()}
        ax.plot(at, np.full(len(at), height), color=mark.colour, **beyond)
    low, high = np.where(np.isfinite(low), low, mean), np.where(np.isfinite(high), high, mean)
    mean, low, high = (np.where(np.isfinite(mean), end, np.nan) for end in (mean, low, high))
    ax.plot(x, mean, dash, color=mark.colour, marker=mark.marker, markersize=4.5, linewidth=1.4, zorder=3)
    ax.errorbar(x, mean, yerr=np.abs([mean - low, high - mean]), fmt="none", ecolor=mark.colour, elinewidth=0.9)
