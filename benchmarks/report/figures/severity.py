"""The figure of shifted images: scores and deep-ensemble equivalents against the severity of corruptions."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.report.figures.diagnostics import representative_sizes
from benchmarks.report.figures.style import Look, legend, literal, open_frame
from benchmarks.report.load import Results
from benchmarks.report.tables.formatting import PERCENT
from benchmarks.report.tables.shift import CLEAN, MEAN, Values, levels

_PANELS = {"acc": "accuracy (%)", "nll": "NLL", "ece": "ECE (%)", "dee_raw": "DEE on NLL"}
_ENSEMBLES = (":", "--", "-")  # of one network, and so on to the largest


def severity(results: Results, style: dict[str, Look]) -> Figure:
    """Draw accuracy, NLL, ECE and DEE against severity, the mean over corruptions: a line a method."""
    assert results.shifts is not None
    figure = Figure(figsize=(8.6, 6.4), layout="constrained")
    values, at = Values(results.shifts), [0, *levels(results)]
    lines = _lines(results, style)
    handles = []
    for method, (look, dash) in lines.items():
        name = f"{method[0]}-{method[1]}" if look.reference else f"{method[0]}, size {method[1]}"
        handles.append(Line2D([], [], color=look.colour, marker=look.marker, linestyle=dash, label=literal(name)))
    for ax, (metric, title) in zip(figure.subplots(2, 2).ravel(), _PANELS.items(), strict=True):
        for place, (method, (look, dash)) in enumerate(lines.items()):
            if metric != "dee_raw" or not look.reference:  # the yardstick is worth its size everywhere
                nudge = 0.03 * (place - (len(lines) - 1) / 2)
                found = [values.of(method, MEAN if level else CLEAN, level, metric) for level in at]
                _line(
                    ax,
                    np.array(at) + nudge,
                    100 * np.array(found) if metric in PERCENT else np.array(found),
                    look,
                    dash,
                )
        if metric == "dee_raw" and results.max_size:
            ax.set_ylim(0.5, results.max_size + 0.5)
            ax.axhline(1, color="#888888", linewidth=0.8)
        ax.set(title=title, xticks=at, xlabel="severity (0: clean)")
        open_frame(ax)
    legend(figure, handles)
    return figure


def _lines(results: Results, style: dict[str, Look]) -> dict[tuple[str, int], tuple[Look, Any]]:
    """Each method but controls at one size, and deep ensembles of one, of that size, and the largest."""
    lines = {}
    for label, size in representative_sizes(results.main).items():
        look = style[label]
        own = results.reference["size"]
        sizes = sorted({int(own.min()), size, int(own.max())}) if look.reference else [size]
        for one, dash in zip(sizes, _ENSEMBLES[-len(sizes) :], strict=True):
            lines[label, one] = look, dash
    return lines


def _line(ax: Axes, x: np.ndarray, found: np.ndarray, look: Look, dash: Any) -> None:
    mean, low, high = found.T
    for end, (height, arrow) in {np.inf: (0.96, r"$\uparrow$"), -np.inf: (0.04, r"$\downarrow$")}.items():
        at = x[mean == end]  # beyond the ensembles
        beyond: Any = {"marker": arrow, "linestyle": "", "markersize": 11, "transform": ax.get_xaxis_transform()}
        ax.plot(at, np.full(len(at), height), color=look.colour, **beyond)
    low, high = np.where(np.isfinite(low), low, mean), np.where(np.isfinite(high), high, mean)
    mean, low, high = (np.where(np.isfinite(mean), end, np.nan) for end in (mean, low, high))
    ax.plot(x, mean, dash, color=look.colour, marker=look.marker, markersize=4.5, linewidth=1.4, zorder=3)
    ax.errorbar(x, mean, yerr=np.abs([mean - low, high - mean]), fmt="none", ecolor=look.colour, elinewidth=0.9)
