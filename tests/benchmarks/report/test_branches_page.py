"""The page on branches: its figure comes from the committed rows, and its differences are theirs."""

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
PAGE = (ROOT / "docs" / "branches.md").read_text(encoding="utf-8")
ROWS = {  # as the page calls them: the end of the label with branches, and of that without
    "8 steps, K = 2, even weights": ("8 steps", "8 steps"),
    "4 steps, K = 4, even": ("4 steps", "4 steps"),
    "2 steps, K = 8, even": ("2 steps", "2 steps"),
    **{f"4 steps, a = {a}".replace("-", "−"): (f"a = {a}", "4 steps") for a in (-2, 1, 2, 4)},
    "4 steps, 1:1:1:3": ("1:1:1:3", "4 steps"),
    "4 steps, even, full update": ("full update", "4 steps"),
    "4 steps, even, 25 updates": ("25 updates", "25 updates"),
    "4 steps, even, 50 updates": ("50 updates", "50 updates"),
}


def test_the_figure_is_drawn_from_committed_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["branch_figures.py", str(tmp_path)])
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: path.write_text("drawn"))
    runpy.run_path("examples/branch_figures.py", run_name="__main__")
    assert {path.name for path in tmp_path.iterdir()} == set(re.findall(r"\(figures/([a-z-]+\.png)\)", PAGE))


@pytest.mark.parametrize("name", ROWS)
def test_differences_of_samplers_are_those_of_the_rows(name: str) -> None:
    rows = pd.read_csv(ROOT / "results" / "reference" / "digits-steps" / "rows.csv")
    fd = rows[rows["metric"] == "fd"].pivot(index="repetition", columns="label", values="value")
    mine, plain = ROWS[name]
    said = []
    for base in ("PD", "SFD"):
        if f"{base} + branches, {mine}" not in fd:
            said.append("–")
            continue
        gaps = fd[f"{base} + branches, {mine}"] - fd[f"{base}, {plain}"]
        half = stats.t.ppf(0.975, len(gaps) - 1) * stats.sem(gaps)
        value, low, high = (gaps.mean() + share * half for share in (0, -1, 1))
        said.append(f"{value:+.1f} [{low:.1f}, {high:.1f}]".replace("-0.0", "0.0").replace("-", "−"))
    assert f"| {name} | {said[0]} | {said[1]} |" in PAGE
