"""The figures of the report: quality against ensemble size and against cost, and the list of all of them.

Each function returns a Matplotlib `Figure` of its own; nothing touches pyplot's global state.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from benchmarks.report.diagnostics import reliability, training_cost
from benchmarks.report.load import Results
from benchmarks.report.overlay import draw_points, drawn, point_handles, published_points
from benchmarks.report.style import CONTROL_COLOUR, RC, REFERENCE_COLOUR, Look, handle, legend, looks, open_frame
from benchmarks.report.tables import PERCENT


def save_figures(results: Results, out_dir: Path) -> dict[str, list[Path]]:
    """Draw every figure into `out_dir` as PNG and PDF; the same results give the same bytes."""
    out_dir.mkdir(parents=True, exist_ok=True)
    style = looks(results)
    saved = {}
    with matplotlib.rc_context(RC):
        for name, draw in FIGURES.items():
            figure = draw(results, style)
            png, pdf = out_dir / f"{name}.png", out_dir / f"{name}.pdf"
            figure.savefig(png, dpi=160, metadata={"Software": None})
            metadata = {"CreationDate": None, "Creator": None, "Producer": None}
            figure.savefig(pdf, metadata=metadata)
            saved[name] = [png, pdf]
    return saved


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
            _curve(ax, rows["size"].to_numpy() + nudge, mean, low, high, look)
            _repetitions(ax, results.rows, label, score, nudge, scale, look)
        ax.set(xlabel="ensemble members covered", title=title, xlim=(sizes[0] - 0.6, sizes[-1] + 0.6))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        open_frame(ax)
    axes[0].set_ylabel(quantity)
    legend(figure, [handle(label, look) for label, look in style.items()])
    return figure


def _curve(ax: Axes, x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray, look: Look) -> None:
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


# --- quality against cost ---------------------------------------------------------------------------------------------


def dee_vs_flops(results: Results, style: dict[str, Look]) -> Figure:
    """Draw the deep-ensemble equivalent against relative FLOPs; deep ensembles are the diagonal."""
    others = results.others[np.isfinite(results.others["macs_rel"])]
    values = others[["dee_raw", "dee_cal"]].to_numpy()
    points = published_points(results)
    finite = [*values[np.isfinite(values)], *(point.y for point in drawn(points))]
    # The estimates set the scale; a long interval is cut off at the top, with an arrow.
    floor, top = min([1.0, *finite]), max([2.0, *finite]) * 1.3 + 0.3
    ceiling = max(top, float(results.max_size or 1)) if np.isposinf(values).any() else None
    right = max([2.1, *others["macs_rel"] * 1.1, *(point.x * 1.05 for point in drawn(points))])
    left, strip = 1 - 0.16 * (right - 1), 0.16 * ((ceiling or top) - floor)

    figure = Figure(figsize=(9.6, 5.4 if drawn(points) else 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, kind, title in zip(axes, ("raw", "cal"), ("raw NLL", "temperature-scaled NLL"), strict=True):
        ax.set(xlim=(left, right), ylim=(floor - strip, ceiling + strip if ceiling else top), title=f"DEE on {title}")
        _diagonal(ax, results.reference["size"], right, ceiling or top)
        ax.axhspan(floor - strip, floor, color="#f1f1f1", zorder=0)
        if ceiling:
            ax.axhspan(ceiling, ceiling + strip, color="#f1f1f1", zorder=0)
        rows = others[others[f"dee_{kind}"].notna() & ~others["control"]]
        borders = (floor - 0.55 * strip, ceiling + 0.4 * strip if ceiling else top - 0.35 * strip)
        _dee_points(ax, rows, kind, style, borders, strip)
        controls = others[others[f"dee_{kind}"].notna() & others["control"]]
        y = np.clip(controls[f"dee_{kind}"], *borders)
        ax.plot(controls["macs_rel"], y, ".", color=CONTROL_COLOUR, markersize=5, zorder=1.5)
        draw_points(ax, points, kind)
        ax.set_xlabel("relative FLOPs (one network = 1)")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=right > 4, steps=[1, 2, 2.5, 5, 10]))
        whole = [
            tick for tick in MaxNLocator(8, integer=True).tick_values(floor, ceiling or top) if floor <= tick <= top
        ]
        bands = {floor - strip / 2: "< 1"} | ({ceiling + strip / 2: f"> {results.max_size}"} if ceiling else {})
        ax.set_yticks([*whole, *bands], [*(f"{tick:g}" for tick in whole), *bands.values()])
        open_frame(ax)
    axes[0].set_ylabel("deep-ensemble equivalent (members)")
    shown = [handle(label, look) for label, look in style.items() if look.reference or label in set(others["label"])]
    if others["control"].any():
        shown.append(Line2D([], [], color=CONTROL_COLOUR, marker=".", markersize=5, linestyle="none", label="controls"))
    legend(figure, [*shown, *point_handles(points)])
    return figure


def _diagonal(ax: Axes, sizes: pd.Series, right: float, top: float) -> None:
    end = min(right, top)
    ax.plot([1, end], [1, end], color=REFERENCE_COLOUR, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
    for size in sizes[sizes <= end]:
        ax.plot(size, size, marker="o", color=REFERENCE_COLOUR, markersize=5, zorder=2)
        at_edge = size + 0.3 > right
        offset, align = ((-7, 5), "right") if at_edge else ((8, -3), "left")
        text: dict[str, Any] = {"textcoords": "offset points", "ha": align, "va": "center", "fontsize": 8}
        if size > 1:  # beside DE-1 is where the methods crowd; the axis already says what 1 is
            ax.annotate(f"DE-{size}", (size, size), offset, **text)


def _dee_points(
    ax: Axes, rows: pd.DataFrame, kind: str, style: dict[str, Look], borders: tuple[float, float], strip: float
) -> None:
    width = float(np.ptp(ax.get_xlim()))
    value, low, high = (rows[f"dee_{kind}{end}"].to_numpy() for end in ("", "_low", "_high"))
    y, y_low, y_high = (np.clip(end, *borders) for end in (value, low, high))
    x = rows["macs_rel"].to_numpy(dtype=float).copy()
    for group in (np.isneginf(value), np.isfinite(value), np.isposinf(value)):
        x[group] = spread(x[group], width * min(0.03, 0.3 / max(1, group.sum())))
    left, right = ax.get_xlim()
    ax.set_xlim(min([left, *(x - 0.02 * width)]), max([right, *(x + 0.02 * width)]))
    for i, (label, size) in enumerate(zip(rows["label"], rows["size"], strict=True)):
        look = style[label]
        if np.isfinite([y_low[i], y_high[i]]).all() and y_low[i] < y_high[i]:
            errors = [[max(0.0, y[i] - y_low[i])], [max(0.0, y_high[i] - y[i])]]
            ax.errorbar(x[i], y[i], errors, fmt="none", ecolor=look.colour, elinewidth=1.3, capsize=3, alpha=0.8)
            if high[i] > borders[1] > y[i]:
                ax.plot(x[i], borders[1], "^", color=look.colour, markersize=5)
        face = look.colour if kind == "raw" else "white"
        ax.plot(x[i], y[i], look.marker, color=look.colour, markerfacecolor=face, markersize=7.5, markeredgewidth=1.5)
        text: dict[str, Any] = {
            "textcoords": "offset points",
            "fontsize": 8,
            "color": look.colour,
            "ha": "center",
            "va": "center",
        }
        text["path_effects"] = [Stroke(linewidth=2, foreground="white"), Normal()]
        # Above the error bar, where neighbours of the same cost cannot hide it; under the marker in the upper band.
        barred = np.isfinite(y_high[i]) and y_high[i] > y[i]
        anchor = (x[i], y_high[i] if barred else y[i])
        ax.annotate(str(size), anchor, (0, -10 if np.isposinf(value[i]) else 7 if barred else 10), **text)
        if np.isinf(value[i]):
            arrow = {"arrowstyle": "-|>", "color": look.colour, "linewidth": 1.2, "shrinkA": 3, "shrinkB": 0}
            ax.annotate("", (x[i], y[i] + math.copysign(0.42 * strip, value[i])), (x[i], y[i]), arrowprops=arrow)


def spread(x: np.ndarray, gap: float) -> np.ndarray:
    """Move values that lie nearer than `gap` apart, about their common mean and in order."""
    clusters = [[i] for i in np.argsort(x, kind="stable")]

    def centre(cluster: list[int]) -> float:
        return float(np.mean(x[cluster]))

    i = 0
    while i + 1 < len(clusters):
        here, after = clusters[i], clusters[i + 1]
        if centre(after) - centre(here) < gap * (len(here) + len(after)) / 2:
            clusters[i : i + 2] = [here + after]
            i = max(0, i - 1)
        else:
            i += 1
    moved = x.astype(float).copy()
    for cluster in clusters:
        moved[cluster] = centre(cluster) + gap * (np.arange(len(cluster)) - (len(cluster) - 1) / 2)
    return moved


FIGURES = {
    "dee_vs_flops": dee_vs_flops,
    "nll_vs_size": nll_vs_size,
    "acc_vs_size": acc_vs_size,
    "reliability": reliability,
    "training_cost": training_cost,
}
