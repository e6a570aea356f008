"""Draw the figure of docs/branches.md on samplers from committed result rows.

    python examples/branch_figures.py docs/figures

Points are means over repetitions; bars are 95 % t intervals, of differences paired over repetitions.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from scipy import stats

BASES = {"PD": "#0173b2", "SFD": "#de8f05"}
LENGTHS = {25: ", 25 updates", 50: ", 50 updates", 100: ", 4 steps"}
SETTINGS = {"a = -2": "a = −2", "4 steps": "a = 0", "a = 1": "a = 1", "a = 2": "a = 2", "a = 4": "a = 4",
            "1:1:1:3": "weights 1:1:1:3", "full update": "a = 0, full update"}  # fmt: skip


def values(suite: str) -> pd.DataFrame:
    """Classifier-FD: a row for each label, a column for each repetition."""
    rows = pd.read_csv(Path("results/reference") / suite / "rows.csv")
    rows = rows[rows["metric"] == "fd"]
    return rows.pivot_table(index="label", columns="repetition", values="value")


def interval(sample: pd.Series) -> tuple[float, float]:
    """Mean, and half the length of its 95 % t interval."""
    sample = sample.dropna()
    return sample.mean(), float(stats.t.ppf(0.975, len(sample) - 1) * stats.sem(sample))


def curve(ax: plt.Axes, table: pd.DataFrame, base: str, ends: dict[int, str]) -> None:
    """Classifier-FD with and without branches, for each x and the end of its label."""
    for branches in (False, True):
        found = [interval(table.loc[f"{base}{' + branches' * branches}{end}"]) for end in ends.values()]
        mean, half = zip(*found, strict=True)
        style = {"ls": "--" if branches else "-", "marker": "s" if branches else "o", "ms": 4, "lw": 1.2}
        ax.errorbar(list(ends), mean, yerr=half, color=BASES[base], label=f"{base}{' + branches' * branches}", **style)


def main(folder: Path) -> None:
    """Three panels: against evaluations, against updates, and by the weights of the branches."""
    table = values("digits-steps")
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for base in BASES:
        curve(axes[0], table, base, {steps: f", {steps} steps" for steps in (2, 4, 8)})
        curve(axes[1], table, base, LENGTHS)
    axes[0].axhline(table.loc["Teacher, 16 steps"].mean(), color="#555555", lw=0.8, ls=":", label="teacher, 16 steps")
    for ax, name, ticks in (
        (axes[0], "network evaluations for one sample", (2, 4, 8)),
        (axes[1], "updates, 4 steps", LENGTHS),
    ):
        ax.set_xscale("log")
        ax.set_xticks(list(ticks), [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel(name)
        ax.set_ylabel("classifier-FD")
    axes[0].legend(fontsize=8, frameon=False)
    for base, shift in (("PD", -0.13), ("SFD", 0.13)):
        for i, end in enumerate(SETTINGS):
            label = f"{base} + branches, {end}"
            if label in table.index:
                mean, half = interval(table.loc[label] - table.loc[f"{base}, 4 steps"])
                axes[2].errorbar(mean, i + shift, xerr=half, fmt="o", ms=4, lw=1, color=BASES[base])
    axes[2].axvline(0, color="#333333", lw=0.8)
    axes[2].set_yticks(range(len(SETTINGS)), list(SETTINGS.values()), fontsize=8)
    axes[2].invert_yaxis()
    axes[2].set_xlabel("classifier-FD minus that without branches")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "branches-samplers.png", dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/figures"))
