"""What a suite's repetitions can tell apart.

`python tests/support/power.py results/reference/digits > docs/digits-power.md` writes the page.

Reads the committed rows alone and uses nothing of the harness's statistics.  A repetition, with a split and a pool of
its own, is one observation: differences are paired t tests over repetitions, and a DEE interval holds the sizes at
which such a test does not tell the method from the deep ensembles' curve.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

SIZES = range(1, 9)
PAIRS = list(combinations((1, 2, 4, 8), 2))
METHODS = (("ED", 3), ("DBN (blind, MSE)", 3))
NULL = ("Null (another member)", 2)
DIFFERENT, WIDEST, EQUAL = 0.001, 1.5, 0.05
SUBSETS = 500
_GRID = np.linspace(1, 8, 1401)


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences with its 95 % interval and p-value."""

    mean: float
    low: float
    high: float
    p: float


def scores(rows: Path, metric: str = "nll") -> pd.DataFrame:
    """One score by repetition (rows) and (label, size) (columns); repetitions in which all methods have it."""
    frame = pd.read_csv(rows / "rows.csv")
    chosen = frame[frame["metric"] == metric]
    return chosen.pivot(index="repetition", columns=["label", "size"], values="value").dropna()


def difference(a: np.ndarray, b: np.ndarray) -> Difference:
    """``a - b`` over repetitions, by Student's t."""
    found = stats.ttest_rel(a, b)
    interval = found.confidence_interval(0.95)
    return Difference(float(np.mean(a - b)), float(interval.low), float(interval.high), float(found.pvalue))


def dee_interval(method: np.ndarray, curve: np.ndarray) -> tuple[float, float]:
    """The sizes between which a method [R] is not told from the curve [R, 8]; infinite where they reach its ends."""
    position = _GRID - 1
    weights = np.maximum(0, 1 - np.abs(position - np.arange(8)[:, None]))
    gaps = method[:, None] - curve @ weights
    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(0, ddof=1) / len(gaps) ** 0.5
    inside = np.flatnonzero(np.abs(gaps.mean(0)) <= half)
    if not len(inside):  # between two points of the grid, or beyond an end of the curve
        crossed = np.flatnonzero(np.diff(np.sign(gaps.mean(0))))
        if len(crossed):
            return float(_GRID[crossed[0]]), float(_GRID[crossed[0] + 1])
        return (-np.inf, 1.0) if gaps.mean() > 0 else (8.0, np.inf)
    low, high = inside[0], inside[-1]
    return (-np.inf if low == 0 else float(_GRID[low])), (np.inf if high == len(_GRID) - 1 else float(_GRID[high]))


def ensembles(table: pd.DataFrame) -> np.ndarray:
    """NLL of DE-1 to DE-8, [R, 8]."""
    return np.stack([table["DE", size].to_numpy() for size in SIZES], 1)


def failures(table: pd.DataFrame) -> list[str]:
    """What of the acceptance is not met, in words; nothing when all is."""
    curve, found = ensembles(table), []
    for a, b in PAIRS:
        p = difference(curve[:, a - 1], curve[:, b - 1]).p
        if not p < DIFFERENT:
            found.append(f"DE-{a} and DE-{b} differ with p = {p:.2g} only")
    for label, size in METHODS:
        low, high = dee_interval(table[label, size].to_numpy(), curve)
        if not high - low <= WIDEST:
            found.append(f"the DEE of {label} of size {size} lies in [{low:.2f}, {high:.2f}]")
    if (p := difference(table[NULL].to_numpy(), curve[:, 0]).p) < EQUAL:
        found.append(f"the null method is told from DE-1 with p = {p:.2g}")
    return found


def subsets(repetitions: int, size: int) -> Iterator[np.ndarray]:
    """Random subsets of so many repetitions, the same for every question; all of them where that is one."""
    rng = np.random.default_rng(size)
    for _ in range(1 if size == repetitions else SUBSETS):
        yield np.sort(rng.permutation(repetitions)[:size])


def page(table: pd.DataFrame) -> str:
    """The power analysis in Markdown."""
    n, curve = len(table), ensembles(table)
    numbers = [size for size in (3, 5, 10, 15, 20, 30) if size < n] + [n]
    lines = [
        "# What the digits suite can tell apart",
        "",
        f"Which differences do {n} repetitions of `digits` detect? Each repetition has its own split and pool",
        "and is one observation. Differences of test NLL are tested by paired t tests over repetitions. A DEE",
        "interval (95 %) contains the ensemble sizes that such a test does not distinguish from the method.",
        "The tables come from the committed rows:",
        "",
        "```sh",
        "python tests/support/power.py results/reference/digits",
        "```",
        "",
        "`tests/benchmarks/test_power.py` requires p < 0.001 for each pair of deep ensembles and DEE",
        "intervals at most 1.5 wide. It also requires that the null method (a second member under another",
        "name) is not distinguished from the first member.",
        "",
        "## All repetitions",
        "",
        "| difference in NLL | mean | 95 % interval | p |",
        "|---|---|---|---|",
    ]
    for a, b in PAIRS:
        lines.append(_row(f"DE-{a} − DE-{b}", difference(curve[:, a - 1], curve[:, b - 1])))
    lines.append(_row("null − DE-1", difference(table[NULL].to_numpy(), curve[:, 0])))
    lines += ["", "| method | DEE interval | width |", "|---|---|---|"]
    for label, size in METHODS:
        low, high = dee_interval(table[label, size].to_numpy(), curve)
        lines.append(f"| {label}, size {size} | {_interval(low, high)} | {_width(high - low)} |")
    lines += [
        "",
        "## Fewer repetitions",
        "",
        f"Over {SUBSETS} random subsets of these repetitions: the share of subsets with p < 0.001, and the median",
        "width of the DEE interval. Large subsets overlap, so they say little about the spread of another",
        "run. The last column is how often the null method is distinguished from DE-1 at the 5 % level.",
        "",
        "| repetitions | " + " | ".join(f"DE-{a}, DE-{b}" for a, b in PAIRS)
        + " | " + " | ".join(f"DEE width, {label}" for label, _ in METHODS) + " | null |",
        "|---" * (len(PAIRS) + len(METHODS) + 2) + "|",
    ]  # fmt: skip
    for number in numbers:
        lines.append(_subset_row(table, curve, number))
    return "\n".join(lines) + "\n"


def _subset_row(table: pd.DataFrame, curve: np.ndarray, number: int) -> str:
    chosen = list(subsets(len(table), number))
    cells = [str(number)]
    for a, b in PAIRS:
        hits = [difference(curve[r, a - 1], curve[r, b - 1]).p < DIFFERENT for r in chosen]
        cells.append(f"{100 * np.mean(hits):.0f} %")
    for key in METHODS:
        method = table[key].to_numpy()
        ends = [dee_interval(method[r], curve[r]) for r in chosen]
        cells.append(_width(float(np.median([high - low for low, high in ends]))))
    null = table[NULL].to_numpy()
    told = [difference(null[r], curve[r, 0]).p < EQUAL for r in chosen]
    return f"| {' | '.join([*cells, f'{100 * np.mean(told):.0f} %'])} |"


def _row(name: str, found: Difference) -> str:
    p = f"{found.p:.1e}" if found.p < 0.001 else f"{found.p:.3f}"
    return f"| {name} | {found.mean:+.4f} | [{found.low:+.4f}, {found.high:+.4f}] | {p} |"


def _interval(low: float, high: float) -> str:
    return f"[{'< 1' if low == -np.inf else f'{low:.2f}'}, {'> 8' if high == np.inf else f'{high:.2f}'}]"


def _width(width: float) -> str:
    return f"{width:.2f}" if np.isfinite(width) else "open"


if __name__ == "__main__":
    sys.stdout.write(page(scores(Path(sys.argv[1]))))
