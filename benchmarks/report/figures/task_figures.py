"""Figures of a suite that is not about classification: its scores against cost, and what its methods exhibit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from safetensors.numpy import load_file

from benchmarks.report.figures.figures import RC, curve, handle, save_figure
from benchmarks.report.figures.selection import drawn, selected
from benchmarks.report.figures.style import Look, in_series, legend, literal, looks, open_frame
from benchmarks.report.load import Results
from benchmarks.report.page.captions import Caption

_PER_ROW = 6  # panels in a row
_GRID = 8  # images in a row of a panel


def figure_captions(results: Results, rows_dir: Path) -> dict[str, Caption]:
    """The figures that there are, in the order of the report."""
    chosen, results = selected(results), drawn(results)
    task = results.task
    assert task
    labels = ", ".join(dict.fromkeys(results.main["label"]))
    found, scores = {}, _plotted(results)
    if scores:
        names = ", ".join(task["scores"][name]["title"] for name in scores)
        found["scores_vs_cost"] = Caption(
            "Scores against " + ("size" if task["axis"][0] == "size" else "cost"),
            f"Each score against {task['axis'][1]}; bars, and the reference's band, are 95 % intervals. Lines connect "
            "the sizes of a method. Controls are left out." + _undrawn(results),
            f"Line plots of {names} for {labels}.",
        )
        if results.main["size"].nunique() > 1 and task["axis"][0] != "size":
            found["scores_vs_size"] = Caption(
                "Scores against size", "As above, against the size of the ensemble.", f"The same by size, {labels}."
            )
    shown = {name for arrays in exhibited(results, rows_dir).values() for name in arrays}
    for name, drawing in task["sample_figures"].items():
        if name in shown:
            found[name] = Caption(drawing["title"], drawing["text"], f"{drawing['title']}: a panel each.")
    return {name: replace(one, text=one.text + chosen) for name, one in found.items()}


def save_task_figures(results: Results, rows_dir: Path, folder: Path, names: Iterable[str]) -> None:
    """Draw the named figures into `folder` as PNG and PDF; the same results give the same bytes."""
    import matplotlib

    task, results = results.task, drawn(results)
    assert task
    shown = in_series(results)
    style = looks(shown)
    with matplotlib.rc_context(RC):
        for name in names:
            if name == "scores_vs_cost":
                figure = _scores(shown, task["axis"][0], task["axis"][1], style)
            elif name == "scores_vs_size":
                figure = _scores(shown, "size", "ensemble size", style)
            else:
                arrays = exhibited(results, rows_dir)
                panels = {who: named[name] for who, named in arrays.items() if name in named}
                figure = _panels(panels, task["sample_figures"][name]["kind"])
            save_figure(figure, folder, name)


def _plotted(results: Results) -> list[str]:
    assert results.task
    return [name for name in results.task["plotted_scores"] if results.main[f"{name}_mean"].notna().any()]


def _undrawn(results: Results) -> str:
    """A sentence about methods made elsewhere of which nobody said what they cost."""
    assert results.task
    known = np.isfinite(results.main[results.task["axis"][0]])
    missing = dict.fromkeys(label for label in results.main["label"] if not known[results.main["label"] == label].any())
    return f" Without a known cost, hence not drawn: {', '.join(missing)}." if missing else ""


def exhibited(results: Results, rows_dir: Path) -> dict[str, dict[str, np.ndarray]]:
    """Arrays by method and name, of the first repetition, in the order of tables after the data themselves."""
    order = [f"{row.label}@{row.size_}" for row in results.summary.rename(columns={"size": "size_"}).itertuples()]
    path = rows_dir / "exhibits.safetensors"
    found: dict[str, dict[str, np.ndarray]] = {"Data": {}}
    arrays = load_file(path) if path.is_file() else {}
    for who in order:
        for key in (key for key in arrays if key.rpartition("/")[0] == who):
            name = key.rpartition("/")[2]
            place, name = ("Data", name.removeprefix("data:")) if name.startswith("data:") else (who, name)
            found.setdefault(place, {})[name] = arrays[key]
    return found


def _scores(results: Results, column: str, title: str, style: Mapping[str, Look]) -> Figure:
    assert results.task
    names = _plotted(results)
    rows = math.ceil(len(names) / 3)
    columns = math.ceil(len(names) / rows)
    figure = Figure(figsize=(3.4 * columns + 0.6, 3.1 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, name in zip(panels, names, strict=False):
        score = results.task["scores"][name]
        scale = 100 if score["percent"] else 1
        for label, look in style.items():
            part = results.main[(results.main["label"] == label) & results.main[f"{name}_mean"].notna()]
            part = part[np.isfinite(part[column])].sort_values(column)
            mean, low, high = (part[f"{name}_{end}"].to_numpy() * scale for end in ("mean", "low", "high"))
            curve(ax, part[column].to_numpy(), mean, low, high, look)
        _ends(ax, results.main[column], results.main[f"{name}_mean"])
        ax.set(xlabel=title, title=score["title"] + (" (%)" if score["percent"] else ""))
        open_frame(ax)
    for ax in panels[len(names) :]:
        ax.remove()
    drawn = {*results.main["label"][np.isfinite(results.main[column])]}
    legend(figure, [handle(label, look) for label, look in style.items() if label in drawn])
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


def _panels(panels: Mapping[str, np.ndarray], kind: str) -> Figure:
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
