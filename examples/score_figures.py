"""Draw the figure of docs/scores.md from committed result rows: pointwise loss, likelihood and samples, side by side.

    python examples/score_figures.py docs/figures

Differences are paired over the repetitions; bars are 95 % t intervals.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

ROWS = Path("results/reference")
RULES = ("Median", "Geometric", "Dominant", "Alternating", "Mixture of experts", "Mean of predictions")
# Of each suite: its scores, and by group the rows (label, size) with the row that they are compared with.
PANELS = {
    "mixture2d": {"dsm": "DSM loss", "nll": "NLL", "energy": "energy distance"},
    "digits-diffusion": {"dsm": "DSM loss", "nll": "NLL", "energy": "energy distance", "fd": "classifier-FD"},
    "iris-forest": {"noise_mse": "noise MSE", "w1_test": "W1 to test", "downstream": "downstream"},
}


def groups(suite: str, rows: pd.DataFrame) -> dict[str, list[tuple[str, int, str, int]]]:
    """By title: (label, size, label and size of its base), of the rows that the suite has."""
    if suite == "iris-forest":
        trees = [
            ("Forest", 100),
            *((rule, 100) for rule in RULES),
            ("Boosted trees", 1),
            ("Boosted trees, per class", 1),
        ]
        found = {"trees, against one tree": [(label, size, "Forest", 1) for label, size in trees]}
    else:
        most = int(rows[rows["label"] == "SE"]["size"].max())
        found = {
            "seeds, against one": [("SE", most, "SE", 1), *((rule, most, "SE", 1) for rule in RULES)],
            "shorter training, against one": [("Short training", most, "Short training", 1)],
            "large initial output, against one": [
                ("Large initial output", n, "Large initial output", 1) for n in (2, 5)
            ],
            "dropout, against one mask": [("MC dropout", n, "MC dropout", 1) for n in (4, 5, 20)],
            "disjoint experts, against one network": [
                (f"Experts, {rule}", n, "SE", 1) for n in (2, 4, 5) for rule in ("mean", "mixture")
            ],
            "overlapping experts, against one network": [
                (f"Overlapping experts, {rule}", n, "SE", 1) for n in (4, 5) for rule in ("mean", "mixture")
            ],
        }
    known = set(zip(rows["label"], rows["size"], strict=True))
    kept = {title: [e for e in entries if {e[:2], e[2:]} <= known] for title, entries in found.items()}
    return {title: entries for title, entries in kept.items() if entries}


def differences(suite: str, folder: Path) -> None:
    """A row for each rule and kind of members, a column for each score; left is better, but for `downstream`."""
    rows = pd.read_csv(ROWS / suite / "rows.csv")
    table = rows.pivot_table(index=["label", "size", "metric"], columns="repetition", values="value")
    found = groups(suite, rows)
    scores = {metric: name for metric, name in PANELS[suite].items() if metric in set(rows["metric"])}
    height = 1.0 + 0.23 * sum(len(entries) + 1.4 for entries in found.values())
    figure, axes = plt.subplots(1, len(scores), figsize=(9, height), layout="constrained", sharey=True)
    ticks: dict[float, str] = {}
    for ax, (metric, name) in zip(axes, scores.items(), strict=True):
        at = 0.0
        for title, entries in found.items():
            if ax is axes[0]:
                style = {"fontweight": "bold", "fontsize": 8, "va": "center", "ha": "right"}
                ax.text(-0.03, at, title, transform=ax.get_yaxis_transform(), **style)
            at += 1
            for label, size, base, of in entries:
                ticks[at] = f"{'mean' if label in ('SE', 'Forest') else label} ({size})"
                keys = (label, size, metric), (base, of, metric)
                if all(key in table.index for key in keys):
                    gap = (table.loc[keys[0]] - table.loc[keys[1]]).dropna()
                    half = stats.t.ppf(0.975, len(gap) - 1) * stats.sem(gap)
                    ax.errorbar(gap.mean(), at, xerr=half, fmt="o", ms=3.5, lw=1, color="#0173b2", clip_on=False)
                at += 1
            at += 0.4
        ax.axvline(0, color="#333333", lw=0.8)
        ax.set_title(name, fontsize=9)
        _scale(ax)
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(list(ticks), list(ticks.values()), fontsize=8)
    axes[0].set_ylim(at, -0.8)
    figure.savefig(folder / f"scores-{suite}.png", dpi=150)
    plt.close(figure)


def _scale(ax: plt.Axes) -> None:
    """Linear up to the power of ten below most of the bars' outer ends, logarithmic further out; few ticks."""
    ends = [np.abs(segment[:, 0]).max() for bars in ax.collections for segment in bars.get_segments()]
    unit = 10.0 ** np.floor(np.log10(np.median(ends)))
    ax.set_xscale("symlog", linthresh=unit)
    most = max(np.abs(ax.get_xlim()))
    every = 1 if most < 100 * unit else 2  # powers of ten between ticks
    steps = [unit * 10.0**power for power in range(0, 9, every) if unit * 10.0**power <= most]
    ticks = [*(-step for step in reversed(steps)), 0, *steps]
    limits = ax.get_xlim()
    ax.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    ax.set_xlim(limits)
    ax.minorticks_off()


def noise(folder: Path) -> None:
    """Loss against distance of samples, as an error of one fixed direction grows, and of the other rows."""
    rows = {suite: pd.read_csv(ROWS / suite / "summary.csv") for suite in ("mixture2d", "digits-diffusion")}
    suites = {suite: summary for suite, summary in rows.items() if summary["label"].str.startswith("Noise ").any()}
    figure, axes = plt.subplots(1, len(suites), figsize=(4.5 * len(suites), 3.6), layout="constrained", squeeze=False)
    for ax, (suite, summary) in zip(axes[0], suites.items(), strict=True):
        disturbed = summary[
            summary["label"].str.startswith("Noise ") | ((summary["label"] == "SE") & (summary["size"] == 1))
        ]
        disturbed = disturbed.sort_values("dsm_mean")
        ax.plot(
            disturbed["dsm_mean"],
            disturbed["energy_mean"],
            "o-",
            ms=4,
            lw=1,
            color="#0173b2",
            label="one score with an error",
        )
        left_out = summary["label"].str.match("Noise|Sum|One network") | summary["dsm_mean"].isna()
        others = summary[~left_out]
        ax.plot(others["dsm_mean"], others["energy_mean"], "s", ms=4, color="#de8f05", label="other rows")
        for _, row in disturbed.iterrows():
            eta = row["label"].removeprefix("Noise ") if row["label"] != "SE" else "0"
            ax.annotate(
                eta, (row["dsm_mean"], row["energy_mean"]), fontsize=7, xytext=(3, 3), textcoords="offset points"
            )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("DSM loss", fontsize=8)
        ax.set_title(suite, fontsize=9)
        ax.tick_params(labelsize=7, which="both")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("energy distance of samples", fontsize=8)
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.savefig(folder / "scores-noise.png", dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/figures")
    target.mkdir(parents=True, exist_ok=True)
    for name in PANELS:
        differences(name, target)
    noise(target)
