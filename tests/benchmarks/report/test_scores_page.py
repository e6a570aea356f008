"""The page on ensembles of scores: its figures come from the committed rows, and its numbers are theirs."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

ROOT = Path(__file__).resolve().parents[3]
_overlapping_digits = ("Overlapping experts, mean", 5), ("Overlapping experts, mixture", 5)
_overlapping = ("Overlapping experts, mean", 4), ("Overlapping experts, mixture", 4)
PAGE = (ROOT / "docs" / "scores.md").read_text(encoding="utf-8")


def test_the_figures_are_drawn_from_committed_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["score_figures.py", str(tmp_path)])
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: path.write_text("drawn"))
    runpy.run_path("examples/score_figures.py", run_name="__main__")
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == set(re.findall(r"\(figures/([a-z0-9-]+\.png)\)", PAGE))


@pytest.mark.parametrize(
    ("suite", "metric", "mine", "theirs", "said"),
    [
        ("digits-diffusion", "dsm", ("SE", 1), ("SE", 4), "0.0050 [0.0038, 0.0062]"),
        ("digits-diffusion", "energy", ("SE", 4), ("SE", 1), "0.001 [−0.003, 0.006]"),
        ("digits-diffusion", "energy", ("Dominant", 4), ("SE", 4), "0.015 [0.014, 0.017]"),
        ("digits-diffusion", "nll", ("SE", 1), ("SE", 4), "0.060 [0.037, 0.084]"),
        ("digits-diffusion", "fd", ("SE", 4), ("SE", 1), "−0.1 [−2.8, 2.6]"),
        ("digits-diffusion", "energy", ("Experts, mean", 5), ("Experts, mixture", 5), "0.122 [0.119, 0.125]"),
        ("digits-diffusion", "energy", *_overlapping_digits, "0.0052 [0.0045, 0.0060]"),
        ("digits-diffusion", "dsm", *_overlapping_digits[::-1], "0.0073 [0.0068, 0.0077]"),
        ("mixture2d", "energy", ("Experts, mean", 4), ("Experts, mixture", 4), "0.132 [0.128, 0.136]"),
        ("mixture2d", "nll", *_overlapping, "0.325 [0.308, 0.342]"),
        ("mixture2d", "energy", *_overlapping, "0.011 [0.010, 0.013]"),
        ("mixture2d", "energy", ("Large initial output", 5), ("SE", 5), "−0.0001 [−0.0004, 0.0002]"),
        ("mixture2d", "energy", ("MC dropout", 1), ("SE", 1), "0.0033 [0.0024, 0.0043]"),
        ("mixture2d", "energy", ("MC dropout", 20), ("MC dropout", 1), "−0.0006 [−0.0014, 0.0001]"),
        ("mixture2d", "energy", ("Short training", 5), ("Short training", 1), "−0.0010 [−0.0055, 0.0034]"),
        ("mixture2d", "energy", ("Noise 0.05", 1), ("MC dropout", 5), "0.044 [0.040, 0.047]"),
        ("mixture2d", "dsm", ("Noise 0.05", 1), ("MC dropout", 5), "−0.0010 [−0.0024, 0.0005]"),
    ],
)
def test_the_differences_are_those_of_the_rows(
    suite: str, metric: str, mine: tuple[str, int], theirs: tuple[str, int], said: str
) -> None:
    rows = pd.read_csv(ROOT / "results" / "reference" / suite / "rows.csv")
    values = rows[rows["metric"] == metric].pivot(index="repetition", columns=["label", "size"], values="value")
    gaps = (values[mine] - values[theirs]).dropna()
    half = stats.t.ppf(0.975, len(gaps) - 1) * stats.sem(gaps)
    digits = len(said.partition(".")[2].partition(" ")[0])
    numbers = (gaps.mean(), gaps.mean() - half, gaps.mean() + half)
    value, low, high = (f"{number:.{digits}f}".replace("-", "−") for number in numbers)
    assert f"{value} [{low}, {high}]" == said
    assert said in " ".join(PAGE.split())


@pytest.mark.parametrize(
    ("suite", "row", "said"),
    [
        ("iris-forest", ("Dominant", 100), "0.48 against"),
        ("iris-forest", ("Forest", 100), "against 0.93 of the mean"),
        ("wine-forest", ("Dominant", 100), "(2.26 and"),
        ("wine-forest", ("Forest", 100), "and 4.75)"),
        ("diabetes-forest", ("Dominant", 100), "(1.24 and"),
        ("diabetes-forest", ("Forest", 100), "and 2.97)"),
        ("iris-forest", ("Boosted trees", 1), "0.36 on Iris"),
        ("wine-forest", ("Boosted trees", 1), "1.49 on Wine"),
        ("diabetes-forest", ("Boosted trees", 1), "1.05 on Diabetes"),
        ("iris-forest", ("Boosted trees, per class", 1), "that row, 0.35,"),
        ("wine-forest", ("Dominant, per class", 100), "1.85 on Wine instead of 2.26"),
    ],
)
def test_the_distances_of_tables_are_those_of_the_rows(suite: str, row: tuple[str, int], said: str) -> None:
    summary = pd.read_csv(ROOT / "results" / "reference" / suite / "summary.csv").set_index(["label", "size"])
    number = re.search(r"\d+\.\d+", said)
    assert number is not None
    assert f"{summary.loc[row, 'w1_test_mean']:.2f}" == number[0]
    assert said in " ".join(PAGE.split())


def test_boosted_trees_are_better_than_every_rule_by_loss_and_by_samples() -> None:
    for suite in ("iris-forest", "wine-forest", "diabetes-forest"):
        summary = pd.read_csv(ROOT / "results" / "reference" / suite / "summary.csv")
        boosted, others = summary["label"] == "Boosted trees", ~summary["label"].str.contains("Boosted|per class")
        for score in ("w1_test_mean", "noise_mse_mean"):
            assert summary.loc[boosted, score].item() < summary.loc[others, score].min()
