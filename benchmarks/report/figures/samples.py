"""The figures of samples that a task stores: a panel for each method."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report.figures.style import literal
from benchmarks.report.model import Results

_PER_ROW = 6  # panels in a row
_GRID = 8  # images in a row of a panel


def samples(results: Results, name: str) -> Figure:
    """Draw the arrays of one name, the data first."""
    panels = {who: named[name] for who, named in results.samples.items() if name in named}
    return draw_panels(panels, results.task.sample_figures[name]["kind"])


def draw_panels(panels: Mapping[str, np.ndarray], kind: str) -> Figure:
    """Draw arrays as `points`, `images` or `paths`, a panel each."""
    columns = min(_PER_ROW, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(1.75 * columns, 1.95 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, (who, array) in zip(axes, panels.items(), strict=False):
        label, _, size = who.rpartition("@") if "@" in who else (who, "", "")
        ax.set_title(literal(label) + (f", {size}" if size not in ("", "1") else ""), fontsize=7.5)
        {"points": _points, "images": _images, "paths": _paths}[kind](ax, array)
    if kind != "images":  # the same window for all, so that they can be compared; outliers do not set it
        corner = np.concatenate([array.reshape(-1, 2) for array in panels.values()])
        low, high = np.percentile(corner, 0.5, axis=0), np.percentile(corner, 99.5, axis=0)
        room = 0.08 * (high - low)
        for ax in axes[: len(panels)]:
            ax.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
    return figure


def _points(ax: Axes, points: np.ndarray) -> None:
    ax.scatter(points[:, 0], points[:, 1], s=1.2 if len(points) > 400 else 4, color="#0173b2", alpha=0.5, linewidths=0)
    ax.set_aspect("equal")


def _images(ax: Axes, images: np.ndarray) -> None:
    count, height, width, *colours = images.shape
    down = math.ceil(count / _GRID)
    sheet = np.full((down * (height + 1), _GRID * (width + 1), *colours), 1.0 if colours else np.nan)
    for index, image in enumerate(images):
        row, column = divmod(index, _GRID)
        sheet[row * (height + 1) :, column * (width + 1) :][:height, :width] = image
    ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")


def _paths(ax: Axes, paths: np.ndarray) -> None:
    for path in paths:
        ax.plot(path[:, 0], path[:, 1], color="#0173b2", linewidth=0.6, alpha=0.6)
    ax.scatter(paths[:, -1, 0], paths[:, -1, 1], s=3, color="#d55e00", zorder=3)
    ax.set_aspect("equal")
