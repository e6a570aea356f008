"""Reports of more methods than a figure can show: figures draw some of them, tables and the explorer have all."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.report import load_results, render
from benchmarks.report.figures.selection import MOST, drawn, selection_note
from benchmarks.report.page.explorer import chart_data
from tests.benchmarks.report.test_report import METHODS, write_results
from tests.support.sketches import drawn as drawn_for_real

ENSEMBLES = [row for row in METHODS if row[2] == "de"]


def methods(count: int) -> list[tuple]:
    """Deep ensembles and ``count`` methods, each worse than the one before it; the last one is the cheapest."""
    others = [
        (f"M{i}", f"m{i}", "ed", 3, 0.08 + 0.0001 * i, 0.078 + 0.0001 * i, 0.968, 1.0 if i == count - 1 else 1.2)
        for i in range(count)
    ]
    return ENSEMBLES + others


def test_as_many_methods_as_figures_can_show_are_all_drawn(tmp_path: Path) -> None:
    results = load_results(write_results(tmp_path, methods(MOST)))
    assert drawn(results) is results
    assert selection_note(results) == ""


def test_of_more_methods_figures_draw_the_front_and_the_best_and_tables_have_all(tmp_path: Path) -> None:
    rows = write_results(tmp_path / "rows", methods(60))
    results = load_results(rows)
    for frame in (drawn(results).summary, drawn(results).rows, drawn(results).reliability):
        assert set(frame["label"]) == {"DE", "M59", *(f"M{i}" for i in range(MOST - 1))}
    render(rows, tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert page.count(f"The figure shows {MOST} of 60 methods: those on the Pareto front of cost and cNLL") == 7
    for name in ("main", "sizes"):
        assert {f"M{i}" for i in range(60)} < set(pd.read_csv(tmp_path / "out/tables" / f"{name}.csv")["label"])
    assert page.count('<th scope="row" class="text">M47</th>') == 1 + 3 + 3  # in tables of scores, sizes, differences
    assert {f"M{i}" for i in range(60)} < {row["label"] for row in chart_data(results)}


@pytest.mark.slow
def test_reports_of_many_methods_are_small_and_take_bounded_time(tmp_path: Path) -> None:
    with drawn_for_real():
        render(write_results(tmp_path / "rows", methods(150)), tmp_path / "out")
    assert (tmp_path / "out/report.html").stat().st_size < 10 * 2**20
    assert all(path.stat().st_size < 2**20 for path in (tmp_path / "out/figures").iterdir())
    rows = write_results(tmp_path / "more", methods(500))
    start = time.process_time()
    render(rows, tmp_path / "out")
    assert time.process_time() - start < 60
