"""Two figures that explain the scores: where confidence and accuracy part, and what training cost."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.report.figures.ranges import MIN_BIN_COUNT
from benchmarks.report.figures.style import FAINT, LineStyle, legend, literal, open_frame
from benchmarks.report.model import Results

_ENSEMBLES = (":", "--", "-")  # of the smallest reference, and so on to the largest


def representative_sizes(frame: pd.DataFrame) -> dict[str, int]:
    """Return for each label the size that most labels have, or else its own nearest to that one."""
    sizes = {label: set(part["size"]) for label, part in frame.groupby("label", sort=False)}
    counts = Counter(size for own in sizes.values() for size in own)
    common = max(counts, key=lambda size: (counts[size], size), default=0)
    return {str(label): min(own, key=lambda size: (abs(size - common), size)) for label, own in sizes.items()}


def representative_lines(results: Results, style: dict[str, LineStyle]) -> dict[tuple[str, int], tuple[LineStyle, Any]]:
    """Return the style and the dashes of each label's representative size, and of the reference's ends, by both.

    Of the reference there are the smallest size, that of the methods, and the largest.
    """
    lines = {}
    for label, size in representative_sizes(results.main).items():
        mark = style[label]
        own = results.reference["size"]
        sizes = sorted({int(own.min()), size, int(own.max())}) if mark.reference else [size]
        for one, dash in zip(sizes, _ENSEMBLES[-len(sizes) :], strict=True):
            lines[label, one] = mark, dash
    return lines


def line_handle(label: str, size: int, mark: LineStyle, dash: Any) -> Line2D:
    """Return the legend's entry of such a line."""
    name = f"{label}-{size}" if mark.reference else f"{label}, size {size}"
    return Line2D([], [], color=mark.colour, marker=mark.marker, linestyle=dash, label=literal(name))


def reliability_diagram(results: Results, style: dict[str, LineStyle]) -> Figure:
    """Draw accuracy minus confidence in each bin, raw and temperature-scaled: a panel for each label."""
    frame = results.reliability
    chosen = representative_sizes(frame)
    labels = [label for label in style if label in chosen]
    lines = max(1, math.ceil(len(labels) / 4))
    columns = max(1, math.ceil(len(labels) / lines))
    figure = Figure(figsize=(8.6 if columns > 2 else 5.4, 2.15 * lines + 0.7), layout="constrained")
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    parts = {label: frame[(frame["label"] == label) & (frame["size"] == chosen[label])] for label in labels}
    limit = _gap_limit(pd.concat(parts.values())) if parts else 0.1
    for i, (label, ax) in enumerate(zip(labels, axes, strict=False)):
        _gaps(ax, parts[label], style[label], limit)
        lowest = i + columns >= len(labels)
        ax.set(xlim=(0, 1), ylim=(-limit, limit), xticks=(0.25, 0.5, 0.75), xlabel="confidence" if lowest else "")
        ax.tick_params(labelbottom=lowest)
        ax.text(0.03, 0.97, _ece(results, label, chosen[label]), transform=ax.transAxes, va="top", fontsize=8.5)
        title = f"{literal(label)}, size {chosen[label]}"
        # A panel has room for some 28 characters of the usual size.
        ax.set_title(title, fontsize=min(9.5, 9.5 * 28 / len(title)))
        open_frame(ax)
    for ax in axes[len(labels) :]:
        ax.set_visible(False)
    for ax in axes[::columns]:
        ax.set_ylabel("accuracy − confidence")
    grey: dict[str, Any] = {"color": "#555555", "linewidth": 1.4, "markersize": 5, "marker": "o"}
    bars = Patch(color=FAINT, label="examples in the bin (log scale)")
    scaled = Line2D([], [], **grey, linestyle="--", markerfacecolor="white", label="temperature-scaled")
    legend(figure, [Line2D([], [], **grey, label="raw"), scaled, bars])
    return figure


def _ece(results: Results, label: str, size: int) -> str:
    row = results.summary[(results.summary["label"] == label) & (results.summary["size"] == size)]
    if row.empty:
        return ""
    raw, scaled = 100 * row[["ece_mean", "cece_mean"]].iloc[0]
    return f"ECE {raw:.2f} %" + (f" → {scaled:.2f} %" if math.isfinite(scaled) else "")


def _populated(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["count"] >= MIN_BIN_COUNT]


def _gap_limit(frame: pd.DataFrame) -> float:
    gaps = (_populated(frame)["accuracy"] - _populated(frame)["confidence"]).abs()
    return float(max(0.1, 1.25 * gaps.max())) if len(gaps) else 0.1


def _gaps(ax: Axes, frame: pd.DataFrame, mark: LineStyle, limit: float) -> None:
    ax.axhline(0, color="#666666", linewidth=1, zorder=1)
    raw = frame[~frame["calibrated"]]
    if len(raw) and raw["count"].max() > 0:
        positions = np.log10(raw["count"] + 1) / math.log10(raw["count"].max() + 1) * 0.6 * limit
        ax.bar(
            raw["lower"], positions, raw["upper"] - raw["lower"], bottom=-limit, align="edge", color=FAINT, alpha=0.6
        )
    for calibrated, line, face in ((False, "-", mark.colour), (True, "--", "white")):
        part = _populated(frame[frame["calibrated"] == calibrated])
        gaps = part["accuracy"] - part["confidence"]
        ax.plot(
            part["confidence"], gaps, line, color=mark.colour, marker=mark.marker, markersize=4.5, markerfacecolor=face
        )


def training_cost(results: Results, style: dict[str, LineStyle]) -> Figure:
    """Draw what training cost: time, the needed members' included, and examples through students and teachers."""
    known = results.main[["train_seconds", "train_seconds_with_members", "student_passes"]].notna().any(axis=1)
    frame = results.main[known]
    own = frame["train_seconds"].fillna(0).to_numpy()
    total = np.fmax(frame["train_seconds_with_members"].to_numpy(), own)
    unit, scale = ("hours", 3600) if total.max(initial=0) > 7200 else ("minutes", 60)
    unit, scale = ("seconds", 1) if total.max(initial=0) < 300 else (unit, scale)
    figure = Figure(figsize=(9.6, 0.27 * len(frame) + 1.3), layout="constrained")
    time, passes = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [1.3, 1]})
    positions = -np.arange(len(frame)) - 0.5 * np.cumsum(frame["label"].ne(frame["label"].shift()).to_numpy())
    colours = [style[label].colour for label in frame["label"]]
    time.barh(positions, (total - own) / scale, color=FAINT, height=0.8)
    time.barh(positions, own / scale, left=(total - own) / scale, color=colours, height=0.8)
    students, teachers = (frame[name].fillna(0).to_numpy() / 1000 for name in ("student_passes", "teacher_passes"))
    passes.barh(positions, students, color=colours, height=0.8)
    passes.barh(positions, teachers, left=students, color=colours, alpha=0.35, height=0.8)
    for ax, values, form in ((time, total / scale, "{:,.1f}"), (passes, students + teachers, "{:,.0f}")):
        for y, value in zip(positions, values, strict=True):
            if value > 0:
                ax.text(value, y, " " + form.format(value), va="center", fontsize=8, color="#444444")
        ax.set_xlim(0, 1.14 * max(values.max(initial=0), 1e-9))
        ax.grid(visible=False, axis="y")
        open_frame(ax)
    names = [f"{literal(label)}  ({size})" for label, size in zip(frame["label"], frame["size"], strict=True)]
    time.set_yticks(positions, names)
    time.set_ylim(min(positions, default=0) - 0.7, max(positions, default=1) + 0.7)
    time.set_xlabel(f"training time ({unit})")
    passes.set_xlabel("own example-passes (thousands)")
    patches = (
        (FAINT, 1.0, "members it needs"),
        ("#777777", 1.0, "its own training (students)"),
        ("#777777", 0.35, "through teachers"),
    )
    legend(figure, [Patch(color=colour, alpha=alpha, label=label) for colour, alpha, label in patches])
    return figure
