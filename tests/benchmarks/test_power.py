"""The digits suite tells methods apart, and leaves equal ones equal; the committed analysis is that of its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.power import METHODS, NULL, SIZES, dee_interval, difference, failures, page, scores

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "results" / "reference" / "digits"


def test_the_committed_rows_tell_methods_apart() -> None:
    assert failures(scores(ROWS)) == []


@pytest.mark.slow
def test_the_committed_analysis_is_that_of_the_committed_rows() -> None:
    assert (ROOT / "docs" / "digits-power.md").read_text(encoding="utf-8") == page(scores(ROWS))


def world(repetitions: int, noise: float, seed: int = 0) -> pd.DataFrame:
    """NLLs that fall with 1 / M, moved up and down together by the split, with noise of each method's own."""
    rng = np.random.default_rng(seed)
    split = rng.normal(0, 0.05, repetitions)
    truth = {("DE", size): 0.2 + 0.2 / size for size in SIZES} | {NULL: 0.4} | dict.fromkeys(METHODS, 0.2 + 0.2 / 2.5)
    columns = {key: nll + split + rng.normal(0, noise, repetitions) for key, nll in truth.items()}
    return pd.DataFrame(columns)


def test_what_splits_have_in_common_drops_out() -> None:
    table = world(10, 1e-4)
    assert failures(table) == []
    assert difference(table["DE", 4].to_numpy(), table["DE", 8].to_numpy()).mean == pytest.approx(0.025, abs=1e-3)
    low, high = dee_interval(table[METHODS[0]].to_numpy(), table[[("DE", size) for size in SIZES]].to_numpy())
    # Linear between DE-2 (0.3) and DE-3 (0.267): 0.28 lies at 2.6.
    assert low - 0.02 < 2.6 < high + 0.02
    assert high - low < 0.1


def test_noise_and_a_null_that_differs_are_found() -> None:
    assert any("DE-4 and DE-8" in sentence for sentence in failures(world(10, 0.05)))
    assert any("DEE of ED" in sentence for sentence in failures(world(10, 0.05)))
    table = world(10, 1e-4)
    table[NULL] = table[NULL] + 0.01
    assert failures(table) == [f"the null method is told from DE-1 with p = {_p(table):.2g}"]


def _p(table: pd.DataFrame) -> float:
    return difference(table[NULL].to_numpy(), table["DE", 1].to_numpy()).p


def test_a_method_beyond_an_end_of_the_curve_lies_there() -> None:
    curve = np.tile(0.2 + 0.2 / np.arange(1, 9), (4, 1)) + np.arange(4)[:, None] * 0.01
    noise = np.arange(4) * 0.01 + np.array([0.001, -0.001, 0.002, 0.0])
    assert dee_interval(0.5 + noise, curve) == (-np.inf, 1.0)
    assert dee_interval(0.1 + noise, curve) == (8.0, np.inf)
    low, high = dee_interval(0.4 + noise, curve)
    assert low == -np.inf
    assert high < 1.1
