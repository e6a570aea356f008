"""Every verdict of the claims page, recomputed from rows and released predictions by code that shares nothing with it.

Paired t intervals over repetitions where these split the data anew or a score is one number a repetition; a bootstrap
of repetitions and test examples where released predictions allow it.  Rows give six digits.
"""

from __future__ import annotations

import csv
import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = ROOT / "results" / "reference"
METRICS = {
    "accuracy": "acc", "NLL": "nll", "cNLL": "cnll", "ECE": "ece", "cECE": "cece", "denoising loss": "dsm",
    "energy distance": "energy", "classifier-FD": "fd", "W1 to test rows": "w1_test", "noise MSE": "noise_mse",
    "DEE (raw)": "nll", "DEE (calibrated)": "cnll",
}  # fmt: skip
EXAMPLEWISE = {"acc", "nll", "cnll", "ece", "cece", "dsm"}  # of these a crossed suite also draws the test examples
with (ROOT / "reports" / "claims" / "claims.csv").open(encoding="utf-8", newline="") as _file:
    VERDICTS = [row for row in csv.DictReader(_file) if row["verdict"] != "no data"]


@cache
def table(suite: str) -> pd.Series:
    """Value by label, size, metric and repetition."""
    rows = pd.read_csv(REFERENCE / suite / "rows.csv")
    return rows.set_index(["label", "size", "metric", "repetition"])["value"].sort_index()


@cache
def splits_anew(suite: str) -> bool:
    return "splits the data anew" in (REFERENCE / suite / "meta.json").read_text(encoding="utf-8")


def by_repetition(suite: str, method: str, metric: str) -> pd.Series:
    found = re.fullmatch(r"(.+) of size (\d+)|((?:DE|SE|Forest)[^ ]*)-(\d+)", method)
    label, size = found[1] or found[3], int(found[2] or found[4])
    return table(suite)[label, size, metric]


def interval(gaps: np.ndarray) -> tuple[float, float, float]:
    mean, spread = gaps.mean(), stats.sem(gaps)
    half = stats.t.ppf(0.975, len(gaps) - 1) * spread
    return mean, mean - half, mean + half


def bound(row: dict[str, str]) -> float:
    """The bound that is demanded, in the units of the rows."""
    number = re.search(r"[−+±]?\d[\d.]*", row["demanded"])[0].replace("−", "-").lstrip("+±")
    return float(number) / (100 if "points" in row["demanded"] else 1)


def word(row: dict[str, str], low: float, high: float) -> str:
    edge, demanded = bound(row), row["demanded"]
    if demanded.startswith("within"):
        holds, fails = -edge < low and high < edge, low >= edge or high <= -edge
    elif demanded.startswith("above"):
        holds, fails = low > edge, high <= edge
    else:
        holds, fails = high < edge, low >= edge
    return "holds" if holds else "does not hold" if fails else "undecided"


def named(row: dict[str, str]) -> str:
    return f"{row['claim']}-{row['suite']}-{row['subject']}"


DIFFERENCES = [row for row in VERDICTS if " minus " in row["quantity"] and "FLOPs" not in row["quantity"]]
SIMPLE = [
    row for row in DIFFERENCES
    if splits_anew(row["suite"]) or METRICS[row["quantity"].partition(" of ")[0]] not in EXAMPLEWISE
]  # fmt: skip


@pytest.mark.parametrize("row", SIMPLE, ids=named)
def test_a_difference_is_a_paired_t_interval_over_repetitions(row: dict[str, str]) -> None:
    quantity, _, methods = row["quantity"].partition(" of ")
    mine, theirs = methods.split(" minus ")
    metric = METRICS[quantity]
    ours = by_repetition(row["suite"], mine, metric)
    gaps = (ours - by_repetition(row["suite"], theirs, metric)).dropna()
    assert len(gaps) == int(row["repetitions"]) >= 3
    value, low, high = interval(gaps.to_numpy())
    found = [float(row[name]) for name in ("effect", "low", "high")]
    rounding = max(2e-6, 2e-6 * ours.abs().max())
    assert found == pytest.approx([value, low, high], rel=1e-3, abs=rounding)
    assert word(row, low, high) == row["verdict"] or "with p <" in row["demanded"]


EQUIVALENTS = [row for row in VERDICTS if row["quantity"].startswith("DEE") and splits_anew(row["suite"])]


@pytest.mark.parametrize("row", EQUIVALENTS, ids=named)
def test_an_equivalent_beyond_a_bound_is_a_difference_from_the_ensembles_curve_there(row: dict[str, str]) -> None:
    quantity, _, method = row["quantity"].partition(" of ")
    metric, edge = METRICS[quantity], bound(row)
    mine = by_repetition(row["suite"], method, metric)
    floor, share = math.floor(edge), edge - math.floor(edge)
    curve = (1 - share) * by_repetition(row["suite"], f"DE-{floor}", metric)
    if share:
        curve = curve + share * by_repetition(row["suite"], f"DE-{floor + 1}", metric)
    _, low, high = interval((mine - curve).to_numpy())  # below the curve is worth more members
    expected = "undecided" if low <= 0 <= high else "above" if high < 0 else "below"
    demanded = row["demanded"].split()[0]
    assert row["verdict"] == {"undecided": "undecided", demanded: "holds"}.get(expected, "does not hold")


CROSSED = [row for row in DIFFERENCES if row not in SIMPLE]


@pytest.mark.parametrize("row", CROSSED, ids=named)
def test_a_difference_over_examples_has_the_mean_of_the_rows_and_no_other_verdict_by_repetition(row: dict) -> None:
    quantity, _, methods = row["quantity"].partition(" of ")
    mine, theirs = (by_repetition(row["suite"], method, METRICS[quantity]) for method in methods.split(" minus "))
    value, low, high = interval((mine - theirs).dropna().to_numpy())
    assert float(row["effect"]) == pytest.approx(value, rel=1e-3, abs=2e-6)
    # Without the draw of test examples the interval is mostly narrower, and never says the opposite.
    assert {word(row, low, high), row["verdict"]} != {"holds", "does not hold"}


@cache
def predictions(label: str, size: int) -> list[dict[str, np.ndarray]]:
    """Released log-probabilities of each repetition; the first M terms of the largest deep ensemble are DE-M."""
    from benchmarks.commands.common import load_plan

    plan, store = load_plan("cifar10-cpu", Path("results/store"), None, None, None)
    wanted = max(cell.size for cell in plan.cells if cell.label == "DE") if label == "DE" else size
    cells = [cell for cell in plan.cells if (cell.label, cell.size) == (label, wanted)]
    return [store.arrays("predictions", cell.predictions) for cell in sorted(cells, key=lambda cell: cell.repetition)]


def examplewise(label: str, size: int, metric: str) -> np.ndarray:
    """Scores [R, N], from log-probabilities alone."""
    scores = []
    for arrays in predictions(label, size):
        terms = arrays["test"][: size if label == "DE" else None].astype(float)
        probabilities, labels = np.exp(terms).mean(0), arrays["test_labels"]
        if metric == "acc":
            scores.append((probabilities.argmax(1) == labels).astype(float))
        else:
            scores.append(-np.log(probabilities[np.arange(len(labels)), labels]))
    return np.stack(scores)


RELEASED = [
    row for row in CROSSED if row["suite"] == "cifar10-cpu" and row["quantity"].split(" of ")[0] in ("NLL", "accuracy")
]


@pytest.mark.parametrize("row", RELEASED, ids=named)
def test_a_bootstrap_of_released_predictions_gives_the_verdict(row: dict[str, str], monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DBN_RELEASED", str(ROOT / "results" / "released"))
    quantity, _, methods = row["quantity"].partition(" of ")
    sides = []
    for method in methods.split(" minus "):
        found = re.fullmatch(r"(.+) of size (\d+)|(DE)-(\d+)", method)
        sides.append(examplewise(found[1] or found[3], int(found[2] or found[4]), METRICS[quantity]))
    count = min(map(len, sides))
    gaps = sides[0][:count] - sides[1][:count]
    assert float(row["effect"]) == pytest.approx(gaps.mean(), rel=1e-3, abs=2e-6)
    draws = np.random.default_rng(0)
    resampled = [
        (draws.multinomial(count, np.full(count, 1 / count)) / count) @ gaps
        @ (draws.multinomial(gaps.shape[1], np.full(gaps.shape[1], 1 / gaps.shape[1])) / gaps.shape[1])
        for _ in range(400)
    ]  # fmt: skip
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert word(row, low, high) == row["verdict"]


def test_nothing_that_has_a_mark_is_left_out() -> None:
    costs = [row for row in VERDICTS if "FLOPs" in row["quantity"]]
    released_dee = [row for row in VERDICTS if row["quantity"].startswith("DEE") and not splits_anew(row["suite"])]
    assert len(SIMPLE) + len(CROSSED) + len(EQUIVALENTS) + len(costs) + len(released_dee) == len(VERDICTS)
    for row in costs:  # counted
        assert row["effect"] == row["low"] == row["high"]
    for row in released_dee:  # the ensembles' curve says on which side of the bound the mean lies
        label, size = re.fullmatch(r"DEE \(\w+\) of (.+) of size (\d+)", row["quantity"]).groups()
        metric, edge = METRICS[row["quantity"].partition(" of ")[0]], bound(row)
        at = table(row["suite"])["DE", round(edge), metric].mean()
        mine = table(row["suite"])[label, int(size), metric].mean()
        assert (mine < at) == (float(row["effect"]) > edge)
        assert row["suite"] == "cifar10-cpu"
