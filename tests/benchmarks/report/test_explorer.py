"""The figure whose axes are chosen: its data, its controls; and the page without scripts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import vl_convert

from benchmarks.report import read_results, render
from benchmarks.report.figures.style import in_series
from benchmarks.report.model import ENDS, Results
from benchmarks.report.page.captions import captions
from benchmarks.report.page.explorer import chart, chart_data, quantities, switches
from benchmarks.report.page.pages import sort_key
from benchmarks.report.tables.main import comparisons_table, main_table, sizes_table
from benchmarks.report.tables.uncertainty import uncertainty_table
from tests.benchmarks.report.made_up import METHODS, change_meta, write_results

GENERATION = Path(__file__).resolve().parents[3] / "results/reference/digits-diffusion"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explorer")
    render(change_meta(write_results(folder / "rows"), controls=["DBN (paper)"]), folder / "out")
    return folder


class Page(HTMLParser):
    """Tables and number of images of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.images = 0
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True
        self.images += tag == "img"

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.tables[-1][-1][-1] += data


def test_the_page_holds_every_table_and_figure_without_its_scripts(report: Path) -> None:
    page, results = Page((report / "out/report.html").read_text()), read_results(report / "rows")
    assert page.images == len(captions(results))
    tables = main_table(results), sizes_table(results), uncertainty_table(results), comparisons_table(results)
    for (head, *rows), table in zip(page.tables, tables, strict=True):
        assert table is not None
        assert head == table.header
        expected = []
        for block in table.blocks:
            expected += [[block.title], *([cell.text for cell in row] for row in block.rows)]
        assert rows == expected


def test_the_data_of_the_figure_are_those_of_the_summary(report: Path) -> None:
    rows = {(row["label"], row["size"]): row for row in chart_data(read_results(report / "rows"))}
    summary = pd.read_csv(report / "rows/summary.csv")
    assert len(rows) == len(summary) == len(METHODS)
    for _, row in summary.iterrows():
        shown = rows[row["label"], row["size"]]
        assert shown["control"] == (row["label"] == "DBN (paper)")
        assert shown["reference"] == (row["label"] == "DE")
        for end, column in zip(ENDS, ("_mean", "_low", "_high"), strict=True):
            assert shown[f"acc{end}"] == pytest.approx(100 * row[f"acc{column}"])
            assert shown[f"nll{end}"] == pytest.approx(row[f"nll{column}"])
            if not math.isnan(dee := row[f"dee_raw{end}"]):  # drawn next to the measured curve if it is censored
                assert shown[f"dee_raw{end}"] == pytest.approx(min(max(dee, 0.5), 8.5))
        assert (shown["macs_rel"] is None) == math.isnan(row["macs_rel"])
    row = summary.set_index(["label", "size"]).loc["DBN (fixed)", 5]
    low, high = f"{row['dee_raw_low']:.4g}", f"{row['dee_raw_high']:.4g}"
    assert rows["DBN (fixed)", 5]["dee_raw_text"] == f"DEE (raw), members ↑: {row['dee_raw']:.4g} [{low}, {high}]"
    assert rows["ED", 3]["dee_raw_text"].startswith("DEE (raw), members ↑: < 1")
    assert "> 8" in rows["a_b & c%", 5]["dee_raw_text"]


def bound(results: Results) -> dict[str, Any]:
    """The controls of the figure by their title; the specification compiles."""
    compiled = vl_convert.vegalite_to_vega(chart(results).to_dict())
    signals = [signal for signal in compiled["signals"] if "bind" in signal]
    return {signal["bind"]["name"]: signal for signal in signals}


def test_every_family_has_a_switch_and_what_the_rows_lack_is_not_offered(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    frame = pd.read_csv(folder / "summary.csv").assign(throughput_examples_per_s=math.nan)
    frame.to_csv(folder / "summary.csv", index=False)
    found = bound(read_results(folder))
    assert list(found) == [
        *("Horizontal", "Vertical", "DE", "ED", "END²", "BN", "DBN", "a_b & c%", "Controls", "Every size of DE")
    ]
    assert (found["Horizontal"]["value"], found["Vertical"]["value"]) == ("macs_rel", "dee_raw")
    assert {"ece_debiased", "nll", "macs_rel"} <= set(found["Vertical"]["bind"]["options"])
    assert "throughput_examples_per_s" not in quantities(read_results(folder))


def test_every_row_made_elsewhere_has_a_switch_of_its_own_and_stands_out(tmp_path: Path) -> None:
    theirs = [(name, "external", "external", 1, 0.1, 0.09, 0.96, 1.0) for name in ("Mine", "Theirs")]
    shared = ("DE (shared blocks)", "shared", "shared", 2, 0.12, 0.11, 0.96, 1.3)
    results = read_results(write_results(tmp_path / "rows", [*METHODS, shared, *theirs]))
    assert {label: switches(results)[label] for label in ("Mine", "Theirs", "DE", "DE (shared blocks)")} == {
        **{"Mine": "Mine", "Theirs": "Theirs", "DE": "DE"},
        "DE (shared blocks)": "DE (shared blocks)",
    }
    assert main_table(results).added == {("Mine", "1"), ("Theirs", "1")}
    render(tmp_path / "rows", tmp_path / "out")
    assert (tmp_path / "out/report.html").read_text().count('<tr class="added">') == 2 * 2  # in two tables


def test_another_task_starts_at_its_headline_against_its_axis() -> None:
    results = read_results(GENERATION)
    found = bound(results)
    assert (found["Horizontal"]["value"], found["Vertical"]["value"]) == ("nfe", "energy")
    assert quantities(results)["fd"] == "classifier-FD ↓"
    # A family of several labels is called by its name, one of a single label by that.
    assert {"SE", "Training data", "aggregate", "MC dropout", "experts", "step-distillation"} <= set(found)
    rows, summary = chart_data(in_series(results)), results.summary.set_index(["label", "size"])
    for row in rows:
        assert row["energy"] == pytest.approx(summary.loc[(row["method"], row["size"]), "energy_mean"])
    assert {row["method"] for row in rows if row["label"] == "Branches"} == {"Branches, 2 steps", "Branches, 4 steps"}


def test_scores_in_per_cent_and_equivalents_are_those_of_the_task() -> None:
    known = read_results(GENERATION)
    task = json.loads(json.dumps(known.meta["task"]))
    task["scores"]["energy"]["percent"] = True
    task |= {"curves": {"worth": "energy"}, "axis": ["size", "trees"]}
    values = {f"worth{end}": 1.5 for end in ENDS}
    results = replace(known, meta=known.meta | {"task": task}, summary=known.summary.assign(**values))
    titles = quantities(results)
    assert (titles["size"], titles["worth"]) == ("Trees", "equivalent members ↑")
    assert chart_data(results)[0]["energy"] == pytest.approx(100 * known.summary["energy_mean"][0])
    bound(results)


def test_one_method_alone_is_a_valid_figure(tmp_path: Path) -> None:
    bound(read_results(write_results(tmp_path, METHODS[10:12], n=1)))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("74.1 ± 2.0", 74.1),
        ("−0.0385 [−0.0425, −0.0345], p < 0.001", -0.0385),
        ("< 1 [< 1, 1.3]", -1e9),
        ("> 8", 1e9),
        ("~1.31×", 1.31),
        ("1,234", 1234),
        ("≈ 0.240 (DER)", 0.24),
    ],
)
def test_cells_are_sorted_by_their_value(text: str, key: float) -> None:
    assert float(sort_key(text)) == key
    assert sort_key("–") == sort_key("") == ""
