"""The range that a figure enlarges, and what figures leave out, for drawing and captions.  Imports no Matplotlib."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.report.figures.overlay import plotted, published_points
from benchmarks.report.model import Results

MIN_BIN_COUNT = 10  # fewer pooled examples than this say nothing about a bin's accuracy


def spans(results: Results) -> tuple[tuple[float, float], tuple[float, float] | None]:
    """Return the range of all costs that are drawn, and the crowded part of it, which is enlarged, if there is one.

    Large sizes of a few ensembles can spread costs so that no part is crowded; then each method's cheapest size counts.
    """
    drawn = results.others[~results.others["control"]]
    costs = drawn["macs_rel"].dropna().to_numpy(dtype=float)
    cheapest = drawn.groupby("label")["macs_rel"].min().dropna().to_numpy(dtype=float)
    published = [point.x for point in plotted(published_points(results))]
    low, high = min([1.0, *costs]), max([2.1, *costs * 1.08, *(1.08 * cost for cost in published)])
    return (low - 0.08 * (high - low), high), crowded(costs, high - low) or crowded(cheapest, high - low)


def crowded(costs: np.ndarray, span: float) -> tuple[float, float] | None:
    """Return the narrowest range that holds three quarters of the costs, with those that lie close to it.

    Nothing where that is a single cost, or costs within half a hundredth, which no enlargement spreads; nor where it is
    about half of the whole span or more.
    """
    ordered = np.sort(costs)
    count = math.ceil(0.75 * len(ordered))
    if count < 2:
        return None
    widths = ordered[count - 1 :] - ordered[: len(ordered) - count + 1]
    start, wide = ordered[np.argmin(widths)], widths.min()
    inside = ordered[(ordered >= start - 0.2 * wide) & (ordered <= start + 1.2 * wide)]
    low, high = float(inside[0]), float(inside[-1])
    pad = 0.1 * (high - low)
    return (low - pad, high + pad) if 0.005 < high - low < span / 3 else None
