"""Draw the figures of docs/dbn.md from committed result rows.

    python examples/dbn_figures.py docs/figures

Differences are paired over the repetitions, which split the data anew; bars are 95 % t intervals.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from scipy import stats

ROWS = Path("results/reference")
SCORES = {"nll": "raw", "cnll": "after temperature scaling"}
COLOURS = {"nll": "#0173b2", "cnll": "#de8f05"}


def values(suite: str) -> pd.DataFrame:
    """NLL and cNLL, a row for each (label, size, metric) and a column for each repetition."""
    rows = pd.read_csv(ROWS / suite / "rows.csv")
    rows = rows[rows["metric"].isin(list(SCORES))]
    return rows.pivot_table(index=["label", "size", "metric"], columns="repetition", values="value")


def interval(sample: pd.Series) -> tuple[float, float]:
    """Mean, and half the length of its 95 % t interval."""
    sample = sample.dropna()
    return sample.mean(), float(stats.t.ppf(0.975, len(sample) - 1) * stats.sem(sample))


def differences(ax: plt.Axes, table: pd.DataFrame, groups: dict[str, list[tuple[str, str]]], base: str) -> None:
    """A row for each (label, what the axis calls it): its NLL minus that of ``base`` as long, raw and scaled."""
    ticks, names, at = [], [], 0.0
    for title, entries in groups.items():
        style = {"fontweight": "bold", "fontsize": 8, "va": "center", "backgroundcolor": "white"}
        ax.text(0.0, at - 0.2, title, transform=ax.get_yaxis_transform(), **style)
        at += 0.9
        for label, name in entries:
            for metric, shift in (("nll", -0.14), ("cnll", 0.14)):
                other = f"{base[:-1]}, 480 epochs)" if "480 epochs" in label else base
                mean, half = interval(table.loc[label, 3, metric] - table.loc[other, 3, metric])
                ax.errorbar(mean, at + shift, xerr=half, fmt="o", ms=3.5, lw=1, color=COLOURS[metric])
            ticks.append(at)
            names.append(name)
            at += 1
        at += 0.4
    ax.axvline(0, color="#333333", lw=0.8)
    ax.set_yticks(ticks, names, fontsize=8)
    ax.set_ylim(at, -0.8)
    ax.spines[["top", "right"]].set_visible(False)
    handles = [plt.Line2D([], [], marker="o", ls="", color=COLOURS[key], label=name) for key, name in SCORES.items()]
    ax.legend(handles=handles, fontsize=8, frameon=False, loc="lower right")


def diffusion(folder: Path) -> None:
    """What the state, the noise and the steps add to one regression."""
    kinds = [(sees, loss) for sees in ("blind", "seeing") for loss in ("MSE", "KL")]
    groups = {
        "no diffusion (Direct)": [(f"Direct ({s}, {loss})", f"{s}, {loss}") for s, loss in kinds],
        "5 steps into 1, rate of the noise": [
            (f"DBN ({s}, {loss}{end})", f"{s}, {loss}, beta {beta}")
            for s, loss in kinds
            for beta, end in (("1e-4", ""), ("1e-2", ", beta 0.01"), ("1", ", beta 1"))
        ],
        "steps, MSE, not distilled": [
            (f"DBN ({s}, {t} step{'s' * (t > 1)} run)", f"{s}, T = {t}")
            for s in ("blind", "seeing")
            for t in (1, 2, 5, 10)
        ],
        "steps, MSE, distilled": [
            (f"DBN ({s}, {t} step{'s' * (t > 1)} distilled)" if t != 5 else f"DBN ({s}, MSE)", f"{s}, T = {t}")
            for s in ("blind", "seeing")
            for t in (1, 2, 5, 10)
        ],
        "a path that is drawn, seeing, T = 10": [
            (f"DBN (seeing, 10 steps drawn, beta {b})", f"beta {b}") for b in ("0.01", "1")
        ],
        "rectified flow": [
            (f"Rectified flow ({s}, {end})", f"{s}, {end}")
            for s in ("blind", "seeing")
            for end in ("5 steps run", "distilled")
        ],
        "480 epochs, against Direct of 480": [
            (f"{label[:-1]}, 480 epochs)", label)
            for label in (
                "Direct (blind, KL)",
                "Direct (seeing, KL)",
                "DBN (blind, MSE)",
                "DBN (seeing, KL)",
                "Rectified flow (blind, distilled)",
                "Rectified flow (seeing, distilled)",
                "Gaussian prior (seeing, 5 steps run)",
                "Gaussian prior (seeing, distilled)",
            )
        ],
    }
    figure, ax = plt.subplots(figsize=(7.5, 11.5), layout="constrained")
    differences(ax, values("digits-bridge"), groups, "Direct (blind, MSE)")
    ax.set_xlabel("NLL minus that of Direct (blind, MSE); lower is better")
    figure.savefig(folder / "dbn-diffusion.png", dpi=150)


def temperature(folder: Path) -> None:
    """Laws of the source temperature: NLL, and how far repetitions lie apart."""
    table = values("digits-bridge")
    laws = {
        "1, fixed": "temperature 1, fixed",
        "2.07, fixed": "temperature 2.0667, fixed",
        "Beta(1, 5) on [2, 2.4] (paper)": "MSE",
        "Beta(1, 5) on [1, 2.2]": "temperature Beta(1, 5) on [1, 2.2]",
        "uniform on [1, 2.2]": "temperature uniform on [1, 2.2]",
        "1 + exponential, mean 0.2": "temperature 1 + exponential of mean 0.2",
    }
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharey=True)
    for i, name in enumerate(laws):
        for sees, shift, marker in (("blind", -0.12, "o"), ("seeing", 0.12, "s")):
            sample = table.loc[f"DBN ({sees}, {laws[name]})", 3, "nll"]
            base = table.loc["DE", 1, "nll"]
            mean, half = interval(sample - base)
            style = {"color": "#0173b2" if sees == "blind" else "#d55e00", "marker": marker, "ms": 4}
            axes[0].errorbar(mean, i + shift, xerr=half, lw=1, ls="", label=sees if i == 0 else None, **style)
            axes[1].plot((sample - base).std(), i + shift, ls="", **style)
    axes[0].set_yticks(range(len(laws)), list(laws), fontsize=8)
    axes[0].invert_yaxis()
    axes[0].set_xlabel("NLL minus one network's", fontsize=9)
    axes[1].set_xlabel("its standard deviation over repetitions", fontsize=9)
    axes[0].legend(fontsize=8, frameon=False)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.locator_params(axis="x", nbins=5)
    figure.savefig(folder / "dbn-temperature.png", dpi=150)


def capacity(folder: Path) -> None:
    """How far one bridge, many bridges and distillation go, up to 33 members."""
    table, sizes = values("digits-capacity"), [3, 5, 9, 17, 33]
    lines = {
        "bridges of 3, 60 epochs each": [("Bridges of 3, 60 epochs each", size) for size in sizes],
        "bridges of 3, 240 epochs in all": [
            (
                f"{count} bridge{'s' * (count > 1)} of 3, 240 epochs in all"
                if count != 4
                else "Bridges of 3, 60 epochs each",
                size,
            )
            for count, size in zip((1, 2, 4, 8, 16), sizes, strict=True)
        ],
        "one bridge, 60 epochs": [
            (f"One bridge of {size}, 60 epochs" if size > 3 else "Bridges of 3, 60 epochs each", size) for size in sizes
        ],
        "one bridge, 240 epochs": [
            (f"One bridge of {size}, 240 epochs" if size > 3 else "1 bridge of 3, 240 epochs in all", size)
            for size in sizes
        ],
        "ED, 60 epochs": [("ED, 60 epochs", size) for size in sizes],
        "ED, 240 epochs": [("ED, 240 epochs", size) for size in sizes],
    }
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained", sharey=True)
    colours = ["#0173b2", "#56b4e9", "#de8f05", "#d55e00", "#029e73", "#cc78bc"]
    for ax, metric in zip(axes, SCORES, strict=True):
        base = table.loc["DE", 3, metric]
        pool = [1, 2, 3, 4, 5, 6, 7, 9, 12, 17, 24, 33]
        ax.plot(pool, [(table.loc["DE", m, metric] - base).mean() for m in pool], "k--", lw=1, label="deep ensemble")
        for i, (name, points) in enumerate(lines.items()):
            found = [interval(table.loc[label, size, metric] - base) for label, size in points]
            at = [size * 1.03 ** (i - 2.5) for size in sizes]
            means, halves = zip(*found, strict=True)
            ax.errorbar(at, means, yerr=halves, fmt="o-", ms=3, lw=1, color=colours[i], label=name)
        ax.set_xscale("log", base=2)
        ax.set_xticks([1, 2, 3, 5, 9, 17, 33], [1, 2, 3, 5, 9, 17, 33])
        ax.minorticks_off()
        ax.set_xlabel("members covered", fontsize=9)
        ax.set_title(SCORES[metric], fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("NLL minus that of DE-3", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(folder / "dbn-capacity.png", dpi=150)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/figures")
    target.mkdir(parents=True, exist_ok=True)
    for draw in (diffusion, temperature, capacity):
        draw(target)
