"""Longer training: the law through a series, its intervals, and the numbers and the figure of the page."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.suite.load import load_suite

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def patience() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples/patience.py"))


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0, 1.7])
def test_a_power_law_is_found(patience: dict[str, Any], exponent: float) -> None:
    epochs, ahead = np.array([60.0, 120, 240, 480, 960]), np.array([30.0, 1000, 10000])
    found = patience["power_law"](epochs, 0.25 + 3 * epochs**-exponent, ahead)
    np.testing.assert_allclose(found, 0.25 + 3 * ahead**-exponent, rtol=1e-6)


def test_a_score_that_rises_has_no_law(patience: dict[str, Any]) -> None:
    epochs, rising = pd.Index([10, 20, 40]), np.array([[0.1, 0.2, 0.3], [0.11, 0.22, 0.31]]).T
    assert np.isnan(patience["power_law"](epochs.to_numpy(float), rising[:, 0], np.array([80.0]))).all()
    ensembles = pd.DataFrame([[0.3, 0.3], [0.2, 0.21]], index=[1, 2])
    found = patience["follow"](pd.DataFrame(rising, index=epochs), ensembles, [80], None)
    assert patience["text"](found.predicted[80], 2) == "–"
    assert patience["text"](found.measured[40], 2).startswith(("1.0", "< 1"))


def test_a_method_as_good_as_an_ensemble_is_worth_its_size(patience: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    ensembles = pd.DataFrame(0.2 + 0.2 / np.array([[1], [2], [4]]) + rng.normal(size=6) * 0.01, index=[1, 2, 4])
    values = pd.DataFrame(ensembles.loc[[1, 2, 4]].to_numpy(), index=[30, 60, 120])
    found = patience["follow"](values, ensembles, [240], None)
    assert [point.value for point in found.measured.values()] == pytest.approx([1, 2, 4])
    assert found.predicted[240].value == np.inf  # the law goes on: 0.2 + 6 / epochs
    again = patience["follow"](values, ensembles, [60], None)
    assert again.predicted[60].value == pytest.approx(2)


def test_pseudo_values_have_the_jackknifes_mean_and_error(patience: dict[str, Any]) -> None:
    """Of a prediction that is linear in the scores they are the repetitions' own: their errors are those of t tests."""
    rng = np.random.default_rng(0)
    epochs, ahead = np.array([10.0, 20, 40, 80]), np.array([1000.0])
    level = rng.normal(size=200) * 0.01
    scores = 0.3 + 2 / epochs[:, None] + level
    found = patience["pseudo_values"](epochs, scores, ahead)
    np.testing.assert_allclose(found, (0.302 + level)[None], atol=1e-9)
    noisy = scores[:, :100] + rng.normal(size=(4, 100)) * 0.001
    again = patience["pseudo_values"](epochs, noisy, ahead)[0]
    assert abs(again.mean() - 0.302 - level[:100].mean()) < 4 * stats.sem(again)


def test_a_series_is_what_differs_in_epochs_alone(patience: dict[str, Any]) -> None:
    found = patience["series"](load_suite("digits-patience"))
    assert set(found) == {"ED", "Labels alone", "One bridge"}
    assert {tuple(rows) for rows in found.values()} == {(60, 120, 240, 480, 960)}
    assert found["ED"][240] == ("ED, 240 epochs", 8)


def test_a_suite_without_a_series_is_refused(
    patience: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["patience.py", "digits"])
    with pytest.raises(SystemExit):
        patience["main"]()
    assert "no entries that differ in epochs alone" in capsys.readouterr().err


def test_the_page_has_the_scripts_numbers_and_figure(
    patience: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs/patience.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python examples/patience.py (.*)$", page, re.MULTILINE)
    assert len(commands) >= 2
    monkeypatch.chdir(ROOT)
    drawn: list[str] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: drawn.append(Path(path).name))
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["patience.py", *command.split()])
        patience["main"]()
    said = capsys.readouterr().out
    lines = re.findall(r"^(?:ED|Labels alone|One bridge)?.*\| [\d(].*\|.*\|.*\|$", page, re.MULTILINE)
    assert lines
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert f"| {cells[1]} | " + " | ".join(cells[2:]) in said, line
    assert drawn == re.findall(r"\(figures/([a-z-]+\.png)\)", page)
