"""Reports of more methods than a figure can show: figures draw some of them, tables and the explorer have all."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.report import load_results, render
from benchmarks.report.figures.selection import MOST, drawn, selected
from benchmarks.report.page.captions import captions
from benchmarks.report.page.chart import chart
from tests.benchmarks.report.test_report import METHODS, write_results
from tests.support.sketches import drawn as drawn_for_real

ENSEMBLES = [row for row in METHODS if row[2] == "de"]


def methods(count: int) -> list[tuple]:
    """Deep ensembles and ``count`` methods that are the worse the later they come; the last one is the cheapest."""
    others = [
        (f"M{i}", f"m{i}", "ed", 3, 0.08 + 0.0001 * i, 0.078 + 0.0001 * i, 0.968, 1.0 if i == count - 1 else 1.2)
        for i in range(count)
    ]
    return ENSEMBLES + others


def test_as_many_methods_as_figures_can_show_are_all_drawn(tmp_path: Path) -> None:
    results = load_results(write_results(tmp_path, methods(MOST)))
    assert drawn(results) is results
    assert selected(results) == ""
    assert "are drawn" not in "".join(caption.text for caption in captions(results).values())
    assert '"legend": null' not in json.dumps(chart(results))


def test_of_more_methods_figures_draw_the_front_and_the_best(tmp_path: Path) -> None:
    rows = write_results(tmp_path / "rows", methods(60))
    results = load_results(rows)
    labels = set(drawn(results).summary["label"])
    assert labels == {"DE", "M59", *(f"M{i}" for i in range(MOST - 1))}
    for frame in (drawn(results).rows, drawn(results).reliability):
        assert set(frame["label"]) == labels
    assert len(drawn(results).reference) == len(ENSEMBLES)


def test_captions_say_how_many_methods_are_drawn_and_tables_have_all(tmp_path: Path) -> None:
    rows = write_results(tmp_path / "rows", methods(60))
    render(rows, tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    said = f"{MOST} of 60 methods are drawn: those on the Pareto front of cost and cNLL, then those with the best cNLL"
    assert page.count(said) == 7
    for name in ("main", "sizes"):
        table = pd.read_csv(tmp_path / "out/tables" / f"{name}.csv")
        assert {f"M{i}" for i in range(60)} < set(table["label"])
    assert page.count('<th scope="row" class="text">M47</th>') == 1 + 3 + 3  # in tables of quality, sizes, differences
    explored = chart(load_results(rows))
    assert {f"M{i}" for i in range(60)} < {row["label"] for row in explored["data"]["values"]}
    assert '"legend": null' in json.dumps(explored)


@pytest.mark.slow
def test_a_report_of_150_methods_is_below_10_mib(tmp_path: Path) -> None:
    rows = write_results(tmp_path / "rows", methods(150))
    with drawn_for_real():
        render(rows, tmp_path / "out")
    assert (tmp_path / "out/report.html").stat().st_size < 10 * 2**20
    assert all(path.stat().st_size < 2**20 for path in (tmp_path / "out/figures").iterdir())


@pytest.mark.slow
def test_the_time_of_a_report_of_500_methods_is_bounded(tmp_path: Path) -> None:
    rows = write_results(tmp_path / "rows", methods(500))
    start = time.process_time()
    render(rows, tmp_path / "out")
    assert time.process_time() - start < 60
    assert len(pd.read_csv(tmp_path / "out/tables/main.csv")) == 500 + len(ENSEMBLES)
