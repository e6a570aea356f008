"""What does longer training bring?  A power law through entries of a suite that differ in their length alone.

    python examples/patience.py digits-patience --epochs 1000 --figure docs/figures/patience.png

Entries that have the same options except for ``epochs`` are a series, of their smallest sizes.  Through its scores,
NLL raw and temperature-scaled and AUGRC, the law ``a + b / epochs^c`` is fitted by least squares, and read at lengths
that were not measured.  The deep-ensemble equivalents and their intervals are computed as those of reports, from one
number a repetition; those of the fit have the jackknife's pseudo-values in the place of scores.  So they include the
uncertainty of a, b and c, but not of the law.  ``--longest`` fits shorter ones only: then predictions can be compared
with measurements.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from benchmarks.results.equivalents import equivalent
from benchmarks.statistics import Interval, Means
from benchmarks.suite.load import load_suite
from benchmarks.suite.schema import Suite
from dbn_core.metrics.dee import deep_ensemble_equivalent
from dbn_core.metrics.scores import Array

SCORES = {"nll": "raw", "cnll": "calibrated", "augrc": "on AUGRC"}
EXPONENTS = np.arange(5, 401) / 100


class Curve(NamedTuple):
    """A series by one score: equivalents of what was measured and of the fit, and the fit's line."""

    measured: dict[int, Interval]
    predicted: dict[int, Interval]
    line: tuple[Array, Array]
    largest: int  # deep ensemble; larger equivalents are not measured


def series(suite: Suite) -> dict[str, dict[int, tuple[str, int]]]:
    """By title: the row (label, size) of each length, of methods with at least three lengths."""
    found: dict[str, dict[int, tuple[str, int]]] = {}
    for entry, method, label in suite.entries():
        options = dict(entry.options)
        if epochs := options.pop("epochs", None):
            kind = f"{method.name} {sorted(options.items())}"
            found.setdefault(kind, {})[int(epochs)] = (label, min(entry.sizes))
    lengths = [dict(sorted(rows.items())) for rows in found.values() if len(rows) >= 3]
    # "ED (60 epochs)" and "ED, 60 epochs" are of the series ED.
    return {next(iter(rows.values()))[0].split(str(min(rows)))[0].rstrip(" ,("): rows for rows in lengths}


def power_law(epochs: Array, values: Array, at: Array) -> Array:
    """The least-squares fit of ``a + b / epochs^c`` with b > 0 at other lengths; NaN if the values do not fall.

    >>> epochs = np.array([10.0, 20.0, 40.0, 80.0])
    >>> power_law(epochs, 0.3 + 2 / epochs, np.array([1000.0])).round(4).tolist()
    [0.302]
    """
    best, found = np.inf, np.full(len(at), np.nan)
    for exponent in EXPONENTS:
        basis = np.stack([np.ones_like(epochs), epochs**-exponent], 1)
        (a, b), *_ = np.linalg.lstsq(basis, values, rcond=None)
        error = float(((basis @ [a, b] - values) ** 2).sum())
        if b > 0 and error < best:
            best, found = error, a + b * at**-exponent
    return found


def pseudo_values(epochs: Array, values: Array, at: Array) -> Array:
    """The jackknife's values [lengths, R] of the fit at other lengths, from scores [epochs, R] of R repetitions."""
    n = values.shape[1]
    whole = power_law(epochs, values.mean(1), at)
    without = [power_law(epochs, np.delete(values, r, 1).mean(1), at) for r in range(n)]
    return np.stack([n * whole - (n - 1) * part for part in without], 1)


def follow(values: pd.DataFrame, ensembles: pd.DataFrame, ahead: list[int], longest: int | None) -> Curve:
    """Fit a series, and compare it with deep ensembles.

    Args:
        values: scores by epochs and repetition.
        ensembles: scores of deep ensembles by size and repetition.
        ahead: lengths to predict.
        longest: the longest that the fit sees; None: all.
    """
    epochs, sizes = list(values.index), list(ensembles.index)
    scores, curve = values.to_numpy(), ensembles.to_numpy()
    used = [i for i, length in enumerate(epochs) if length <= (longest or epochs[-1])]
    known = np.array([epochs[i] for i in used], float)

    def equivalents(found: Array) -> list[Interval]:
        unknown = Interval(np.nan, np.nan, np.nan)
        return [
            unknown if np.isnan(row).any() else equivalent(Means((row - curve)[:, :, None]), sizes) for row in found
        ]

    fine = np.geomspace(epochs[0], max(epochs[-1], *ahead), 60)
    law = power_law(known, scores[used].mean(1), fine)
    line = np.array([deep_ensemble_equivalent(value, sizes, curve.mean(1)) for value in law])
    predicted = equivalents(pseudo_values(known, scores[used], np.array(ahead, float)))
    return Curve(
        dict(zip(epochs, equivalents(scores), strict=True)),
        dict(zip(ahead, predicted, strict=True)),
        (fine, np.clip(line, 1, sizes[-1])),
        sizes[-1],
    )


def curves(suite: Suite, rows: Path, ahead: list[int], longest: int | None) -> dict[str, dict[str, Curve]]:
    """By series and score."""
    known = pd.read_csv(rows / "rows.csv")
    table = known.pivot_table(index=["metric", "label", "size"], columns="repetition", values="value")
    found: dict[str, dict[str, Curve]] = {}
    for title, lengths in series(suite).items():
        for score in SCORES:
            values = table.loc[[(score, *row) for row in lengths.values()]].dropna(axis=1)
            ensembles = table.loc[(score, "DE")][values.columns].sort_index()
            curve = follow(values.set_axis(list(lengths)), ensembles, ahead, longest)
            found.setdefault(title, {})[score] = curve
    return found


def ends(interval: Interval) -> tuple[float, float, float]:
    """The estimate and both ends."""
    return interval.value, interval.low, interval.high


def text(interval: Interval, largest: int) -> str:
    """A DEE with its interval, as reports write it; a dash where the law does not hold."""
    if np.isnan(interval.value):
        return "–"
    value, low, high = (
        f"> {largest}" if number == np.inf else "< 1" if number == -np.inf else f"{number:.1f}"
        for number in ends(interval)
    )
    return f"{value} [{low}, {high}]"


def draw(found: dict[str, dict[str, Curve]], path: Path) -> None:
    """A panel for each score: equivalents against epochs, the fit as a line."""
    most = max(curve.largest for by_score in found.values() for curve in by_score.values())
    figure, axes = plt.subplots(1, len(SCORES), figsize=(10, 3.6), layout="constrained", sharey=True)
    colours = dict(zip(found, ("#0173b2", "#d55e00", "#029e73", "#cc78bc"), strict=False))
    for ax, (score, name) in zip(axes, SCORES.items(), strict=True):
        for index, (title, by_score) in enumerate(found.items()):
            curve, colour = by_score[score], colours[title]
            ax.plot(*curve.line, lw=1, ls="--", color=colour)
            for filled, points in ((True, curve.measured), (False, curve.predicted)):
                value, low, high = np.clip(np.array([ends(interval) for interval in points.values()]), 1, most).T
                style = {"mfc": colour if filled else "white", "label": title if filled else None}
                errors = [value - low, high - value]
                at = np.array(list(points)) * 1.05**index  # side by side
                ax.errorbar(at, value, yerr=errors, fmt="o", ms=4, lw=1, color=colour, **style)
        ax.set_xscale("log")
        ax.set_xlabel("epochs")
        ax.set_title(f"DEE, {name}", fontsize=10)
        ax.set_ylim(0.9, most + 0.1)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("deep-ensemble equivalent")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(found), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Print a table for each series, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", help="a built-in suite, or the path of a .toml file")
    parser.add_argument("--rows", type=Path, help="folder of its rows [results/reference/SUITE]")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1000], help="lengths to predict [1000]")
    parser.add_argument("--longest", type=int, help="fit up to this length only")
    parser.add_argument("--figure", type=Path, help="PNG file")
    asked = parser.parse_args()
    suite = load_suite(asked.suite)
    rows = asked.rows or Path("results/reference") / suite.name
    if not (rows / "rows.csv").is_file():
        parser.error(f"there are no rows in {rows}: `dbn-bench run {asked.suite}` makes them in results/runs")
    found = curves(suite, rows, asked.epochs, asked.longest)
    if not found:
        parser.error(f"{asked.suite} has no entries that differ in epochs alone, three lengths or more")
    for title, by_score in found.items():
        print(f"{title}: epochs, DEE {', '.join(SCORES.values())}")
        for kind, note in (("measured", ""), ("predicted", " (fit)")):
            for length in getattr(by_score["nll"], kind):
                cells = [text(getattr(curve, kind)[length], curve.largest) for curve in by_score.values()]
                print(f"| {length}{note} | {' | '.join(cells)}")
    if asked.figure:
        draw(found, asked.figure)


if __name__ == "__main__":
    main()
