"""The figures of the report: quality against ensemble size, and the list of all of them.

Each function returns a Matplotlib `Figure` of its own; nothing touches pyplot's global state.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from benchmarks.report.figures.dee import dee_vs_flops
from benchmarks.report.figures.diagnostics import reliability, training_cost
from benchmarks.report.figures.fronts import pareto_flops, pareto_training
from benchmarks.report.figures.severity import severity
from benchmarks.report.figures.style import Look, legend, literal, looks, open_frame
from benchmarks.report.load import Results
from benchmarks.report.tables.formatting import PERCENT
from dbn_core.files import atomic_write

RC: dict[Any, Any] = {
    **sns.axes_style("whitegrid"),
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.edgecolor": "#888888",
    "grid.color": "#e8e8e8",
    "pdf.fonttype": 42,  # text in the PDF stays text, as publishers ask
}


def save_figures(results: Results, out_dir: Path, names: Iterable[str]) -> None:
    """Draw the named figures into `out_dir` as PNG and PDF; the same results give the same bytes."""
    style = looks(results)
    with matplotlib.rc_context(RC):
        for name in names:
            save_figure((FIGURES | SHIFTED)[name](results, style), out_dir, name)


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as PNG and PDF, each whole or not at all, and without dates."""
    dates = {"CreationDate": None, "Creator": None, "Producer": None}
    for end, options in (("png", {"dpi": 160, "metadata": {"Software": None}}), ("pdf", {"metadata": dates})):
        drawn = io.BytesIO()
        figure.savefig(drawn, format=end, **options)
        atomic_write(folder / f"{name}.{end}", drawn.getvalue())


# --- quality against size ---------------------------------------------------------------------------------------------


def nll_vs_size(results: Results, style: dict[str, Look]) -> Figure:
    """Draw NLL, raw and after temperature scaling, against the members that a method covers."""
    return _score_vs_size(results, style, "test NLL", {"nll": "raw", "cnll": "temperature-scaled"})


def acc_vs_size(results: Results, style: dict[str, Look]) -> Figure:
    """Draw accuracy against the members that a method covers."""
    return _score_vs_size(results, style, "test accuracy (%)", {"acc": ""})


def _score_vs_size(results: Results, style: dict[str, Look], quantity: str, scores: dict[str, str]) -> Figure:
    figure = Figure(figsize=(8.6 if len(scores) > 1 else 7.4, 3.9), layout="constrained")
    axes = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    sizes = sorted(set(results.main["size"]))
    others = [label for label, look in style.items() if not look.reference]
    step = min(0.09, 0.8 / max(1, len(others)))  # and none comes near to the next size
    for ax, (score, title) in zip(axes, scores.items(), strict=True):
        scale = 100 if score in PERCENT else 1
        values = results.main[f"{score}_mean"] * scale
        if score not in PERCENT and values.min() > 0 and values.max() / values.min() > 8:
            ax.set_yscale("log")
        for label, look in style.items():
            rows = results.main[results.main["label"] == label]
            # Methods of the same size would hide each other's error bars.
            nudge = 0 if look.reference else step * (others.index(label) - (len(others) - 1) / 2)
            mean, low, high = (rows[f"{score}_{end}"].to_numpy() * scale for end in ("mean", "low", "high"))
            curve(ax, rows["size"].to_numpy() + nudge, mean, low, high, look)
            _repetitions(ax, results.rows, label, score, nudge, scale, look)
        ax.set(xlabel="ensemble members covered", title=title, xlim=(sizes[0] - 0.6, sizes[-1] + 0.6))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        open_frame(ax)
    axes[0].set_ylabel(quantity)
    legend(figure, [handle(label, look) for label, look in style.items()])
    return figure


def handle(label: str, look: Look) -> Line2D:
    """Return the legend's entry for a label."""
    return Line2D([], [], color=look.colour, marker=look.marker, markersize=6, linewidth=1.6, label=literal(label))


def curve(ax: Axes, x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray, look: Look) -> None:
    """Draw means over `x`, with intervals: a band for the yardstick, bars for the others."""
    ax.plot(x, mean, marker=look.marker, color=look.colour, markersize=6, linewidth=1.6, zorder=3)
    if look.reference:
        ax.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
        return
    known = np.isfinite(low) & np.isfinite(high)
    errors = np.abs(np.stack([mean - low, high - mean]))[:, known]
    ax.errorbar(x[known], mean[known], yerr=errors, fmt="none", ecolor=look.colour, elinewidth=1.2, capsize=2.5)


def _repetitions(ax: Axes, rows: pd.DataFrame, label: str, score: str, nudge: float, scale: float, look: Look) -> None:
    part = rows[(rows["label"] == label) & (rows["metric"] == score) & (rows["split"] == "test")]
    ax.scatter(part["size"] + nudge, part["value"] * scale, s=7, color=look.colour, alpha=0.35, linewidths=0, zorder=2)


FIGURES = {
    "dee_vs_flops": dee_vs_flops,
    "pareto_flops": pareto_flops,
    "pareto_training": pareto_training,
    "nll_vs_size": nll_vs_size,
    "acc_vs_size": acc_vs_size,
    "reliability": reliability,
    "training_cost": training_cost,
}
SHIFTED = {"severity": severity}  # of rows with shifted images
