"""The list of all figures of the report, and how they are saved.

Each function returns a Matplotlib `Figure` of its own; nothing touches pyplot's global state.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.figure import Figure

from benchmarks.report.figures.dee import dee_vs_flops
from benchmarks.report.figures.diagnostics import reliability_diagram, training_cost
from benchmarks.report.figures.fronts import pareto_flops, pareto_training
from benchmarks.report.figures.risk_coverage import risk_coverage
from benchmarks.report.figures.samples import samples
from benchmarks.report.figures.scores import acc_vs_size, nll_vs_size, scores_vs_cost, scores_vs_size
from benchmarks.report.figures.severity import severity
from benchmarks.report.figures.style import in_series, styles
from benchmarks.report.model import Results
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
    results = in_series(results)
    style = styles(results)
    with matplotlib.rc_context(RC):
        for name in names:
            figure = FIGURES[name](results, style) if name in FIGURES else samples(results, name)
            save_figure(figure, out_dir, name)


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as PNG and PDF, each whole or not at all, and without dates."""
    dates = {"CreationDate": None, "Creator": None, "Producer": None}
    for end, options in (("png", {"dpi": 160, "metadata": {"Software": None}}), ("pdf", {"metadata": dates})):
        drawn = io.BytesIO()
        figure.savefig(drawn, format=end, **options)
        atomic_write(folder / f"{name}.{end}", drawn.getvalue())


FIGURES = {
    "dee_vs_flops": dee_vs_flops,
    "pareto_flops": pareto_flops,
    "pareto_training": pareto_training,
    "nll_vs_size": nll_vs_size,
    "acc_vs_size": acc_vs_size,
    "reliability": reliability_diagram,
    "training_cost": training_cost,
    "risk_coverage": risk_coverage,
    "severity": severity,
    "scores_vs_cost": scores_vs_cost,
    "scores_vs_size": scores_vs_size,
}
