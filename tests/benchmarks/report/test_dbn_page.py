"""The page on bridges: its figures come from the committed rows, and its numbers are theirs."""

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
PAGE = (ROOT / "docs" / "dbn.md").read_text(encoding="utf-8")


def test_the_figures_are_drawn_from_committed_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["dbn_figures.py", str(tmp_path)])
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: path.write_text("drawn"))
    runpy.run_path("examples/dbn_figures.py", run_name="__main__")
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == set(re.findall(r"\(figures/([a-z-]+\.png)\)", PAGE))


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        ("DBN (blind, MSE)", "Direct (blind, MSE)", "−0.004 [−0.014, 0.006]"),
        ("DBN (blind, KL)", "Direct (blind, KL)", "0.013 [0.005, 0.021]"),
        ("DBN (seeing, MSE)", "DBN (blind, MSE)", "0.022 [0.015, 0.030]"),
        ("DBN (blind, 10 steps run)", "Direct (blind, MSE)", "−0.016 [−0.027, −0.006]"),
        ("DBN (blind, 10 steps distilled)", "DBN (blind, 10 steps run)", "0.006 [−0.001, 0.013]"),
        ("DBN (blind, MSE, 480 epochs)", "Direct (blind, MSE, 480 epochs)", "−0.004 [−0.009, 0.001]"),
        ("DBN (blind, temperature 2.0667, fixed)", "DBN (blind, MSE)", "−0.006 [−0.014, 0.001]"),
    ],
)
def test_the_differences_are_those_of_the_rows(mine: str, theirs: str, said: str) -> None:
    rows = pd.read_csv(ROOT / "results" / "reference" / "digits-bridge" / "rows.csv")
    nll = rows[(rows["metric"] == "nll") & (rows["size"] == 3)].pivot(
        index="repetition", columns="label", values="value"
    )
    gaps = (nll[mine] - nll[theirs]).dropna()
    half = stats.t.ppf(0.975, len(gaps) - 1) * stats.sem(gaps)
    numbers = (gaps.mean(), gaps.mean() - half, gaps.mean() + half)
    value, low, high = (f"{number:.3f}".replace("-", "−") for number in numbers)
    assert f"{value} [{low}, {high}]" == said
    assert said in PAGE
