"""Figures of scores: against ensemble size in classification, against cost and size in other tasks."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from benchmarks.report.figures.selection import plotted_scores
from benchmarks.report.figures.style import LineStyle, legend, literal, open_frame
from benchmarks.report.model import Results


def nll_vs_size(results: Results, style: dict[str, LineStyle]) -> Figure:
    """Draw NLL, raw and after temperature scaling, against the members that a method covers."""
    return _score_vs_size(results, style, "test NLL", {"nll": "raw", "cnll": "temperature-scaled"})


def acc_vs_size(results: Results, style: dict[str, LineStyle]) -> Figure:
    """Draw accuracy against the members that a method covers."""
    return _score_vs_size(results, style, "test accuracy (%)", {"acc": ""})


def _score_vs_size(results: Results, style: dict[str, LineStyle], quantity: str, scores: dict[str, str]) -> Figure:
    figure = Figure(figsize=(8.6 if len(scores) > 1 else 7.4, 3.9), layout="constrained")
    axes = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    sizes = sorted(set(results.main["size"]))
    others = [label for label, mark in style.items() if not mark.reference]
    step = min(0.09, 0.8 / max(1, len(others)))  # and none comes near to the next size
    for ax, (score, title) in zip(axes, scores.items(), strict=True):
        scale = results.task.scores[score].scale
        values = results.main[f"{score}_mean"] * scale
        if scale == 1 and values.min() > 0 and values.max() / values.min() > 8:
            ax.set_yscale("log")
        for label, mark in style.items():
            rows = results.main[results.main["label"] == label]
            # Methods of the same size would hide each other's error bars.
            nudge = 0 if mark.reference else step * (others.index(label) - (len(others) - 1) / 2)
            mean, low, high = (rows[f"{score}_{end}"].to_numpy() * scale for end in ("mean", "low", "high"))
            curve(ax, rows["size"].to_numpy() + nudge, mean, low, high, mark)
            _repetitions(ax, results.rows, label, score, nudge, scale, mark)
        ax.set(xlabel="ensemble members covered", title=title, xlim=(sizes[0] - 0.6, sizes[-1] + 0.6))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        open_frame(ax)
    axes[0].set_ylabel(quantity)
    legend(figure, [handle(label, mark) for label, mark in style.items()])
    return figure


def handle(label: str, mark: LineStyle) -> Line2D:
    """Return the legend's entry for a label."""
    return Line2D([], [], color=mark.colour, marker=mark.marker, markersize=6, linewidth=1.6, label=literal(label))


def curve(ax: Axes, x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray, mark: LineStyle) -> None:
    """Draw means over `x`, with intervals: a band for the reference, bars for the others."""
    ax.plot(x, mean, marker=mark.marker, color=mark.colour, markersize=6, linewidth=1.6, zorder=3)
    if mark.reference:
        ax.fill_between(x, low, high, color=mark.colour, alpha=0.15, linewidth=0)
        return
    known = np.isfinite(low) & np.isfinite(high)
    errors = np.abs(np.stack([mean[known] - low[known], high[known] - mean[known]]))
    ax.errorbar(x[known], mean[known], yerr=errors, fmt="none", ecolor=mark.colour, elinewidth=1.2, capsize=2.5)


def _repetitions(
    ax: Axes, rows: pd.DataFrame, label: str, score: str, nudge: float, scale: float, mark: LineStyle
) -> None:
    part = rows[(rows["label"] == label) & (rows["metric"] == score) & (rows["split"] == "test")]
    ax.scatter(part["size"] + nudge, part["value"] * scale, s=7, color=mark.colour, alpha=0.35, linewidths=0, zorder=2)


def scores_vs_cost(results: Results, style: dict[str, LineStyle]) -> Figure:
    """Draw the task's scores against its cost."""
    return _scores(results, *results.task.axis, style)


def scores_vs_size(results: Results, style: dict[str, LineStyle]) -> Figure:
    """Draw the task's scores against the size of the ensemble."""
    return _scores(results, "size", "ensemble size", style)


def _scores(results: Results, column: str, title: str, style: dict[str, LineStyle]) -> Figure:
    names = plotted_scores(results)
    rows = math.ceil(len(names) / 3)
    columns = math.ceil(len(names) / rows)
    figure = Figure(figsize=(3.4 * columns + 0.6, 3.1 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, name in zip(panels, names, strict=False):
        score = results.task.scores[name]
        for label, mark in style.items():
            part = results.main[(results.main["label"] == label) & results.main[f"{name}_mean"].notna()]
            part = part[np.isfinite(part[column])].sort_values(column)
            mean, low, high = (part[f"{name}_{end}"].to_numpy() * score.scale for end in ("mean", "low", "high"))
            curve(ax, part[column].to_numpy(), mean, low, high, mark)
        _ends(ax, results.main[column], results.main[f"{name}_mean"])
        ax.set(xlabel=title, title=score.title + (" (%)" if score.percent else ""))
        open_frame(ax)
    for ax in panels[len(names) :]:
        ax.remove()
    drawn = {*results.main["label"][np.isfinite(results.main[column])]}
    legend(figure, [handle(label, mark) for label, mark in style.items() if label in drawn])
    return figure


def _ends(ax: Axes, costs: Any, values: Any) -> None:
    """Logarithmic axes where numbers span more than a decade."""
    known = costs[np.isfinite(costs) & (costs > 0)]
    if len(known) and known.max() / known.min() > 12:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    else:
        whole = bool(len(known)) and (known.max() > 4 or bool((known % 1 == 0).all()))
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    if values.min() > 0 and values.max() / values.min() > 12:
        ax.set_yscale("log")
