"""What the explorable part of a report is given: data, columns, sort keys; and what is left of the page without it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import vl_convert

from benchmarks.report import load_results, render
from benchmarks.report.figures.cache import FIGURES
from benchmarks.report.figures.style import MARKERS, in_series
from benchmarks.report.load import SCORES
from benchmarks.report.page.chart import SHAPES, chart
from benchmarks.report.page.explorer import scale_of, sort_key
from benchmarks.report.page.quantities import data, families, quantities
from benchmarks.report.tables.formatting import comparisons_table, main_table, sizes_table
from tests.benchmarks.report.test_report import METHODS, NAN, write_results


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explorer")
    rows = write_results(folder / "rows")
    meta = json.loads((rows / "meta.json").read_text())
    (rows / "meta.json").write_text(json.dumps(meta | {"controls": ["DBN (paper)"]}))
    render(rows, folder / "out")
    return folder


class Page(HTMLParser):
    """Texts of a page as a browser without scripts shows it: nothing that is hidden, no script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.text: list[str] = []
        self.images = 0
        self._hidden: list[str] = []
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "hidden" in dict(attrs) or tag in ("script", "style") or (self._hidden and tag == self._hidden[0]):
            self._hidden.append(tag)
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True
        self.images += tag == "img"

    def handle_endtag(self, tag: str) -> None:
        if self._hidden and tag == self._hidden[0]:
            self._hidden.pop()
        elif tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text.append(data)
            if self._in_cell:
                self.tables[-1][-1][-1] += data.replace("\xa0", " ")


def test_without_scripts_the_page_shows_the_tables_and_figures_and_nothing_else(report: Path) -> None:
    page = Page((report / "out/report.html").read_text())
    results = load_results(report / "rows")
    assert page.images == len(FIGURES)
    assert len(page.tables) == 3
    for shown, table in zip(
        page.tables, (main_table(results), sizes_table(results), comparisons_table(results)), strict=True
    ):
        head, *rows = shown
        assert head == table.header
        expected = []
        for block in table.blocks:
            expected += [[block.title], *([cell.text for cell in row] for row in block.rows)]
        assert [row for row in rows if row] == expected
    text = "".join(page.text)
    assert "Explore" not in text
    assert "under the pointer" not in text


def test_the_data_of_the_page_are_those_of_the_summary(report: Path) -> None:
    html = (report / "out/report.html").read_text()
    (embedded,) = re.findall(r'<script type="application/json" id="explore-chart">(.*?)</script>', html)
    spec = json.loads(embedded)
    rows = {(row["label"], row["size"]): row for row in spec["data"]["values"]}
    summary = pd.read_csv(report / "rows/summary.csv")
    assert len(rows) == len(summary) == len(METHODS)
    for _, row in summary.iterrows():
        shown = rows[row["label"], row["size"]]
        assert (shown["family"], shown["n"]) == (row["family"], row["n"])
        assert shown["control"] == (row["label"] == "DBN (paper)")
        assert shown["reference"] == (row["label"] == "DE")
        columns = {f"{score}{end}": f"{score}{end or '_mean'}" for score in SCORES for end in ("", "_low", "_high")}
        columns |= {f"dee_{kind}{end}": f"dee_{kind}{end}" for kind in ("raw", "cal") for end in ("", "_low", "_high")}
        columns |= {name: name for name in ("macs_rel", "params", "latency_b1_p50_ms", "train_seconds_with_members")}
        for key, column in columns.items():
            value = NAN if shown[key] is None else float(shown[key])
            assert value == pytest.approx(row[column], nan_ok=True), (row["label"], key)


def test_any_score_with_an_interval_is_offered_and_an_absent_one_is_not(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    frame = pd.read_csv(folder / "summary.csv")
    for end, shift in (("mean", 0), ("low", -0.1), ("high", 0.1)):
        frame[f"ece_debiased_{end}"] = 0.5 + shift
        frame[f"lonely_{end}"] = NAN
    frame["half_mean"] = 1.0
    frame = frame.assign(dee_raw_fit=2.0, dee_raw_fit_low=1.0, dee_raw_fit_high=math.inf)
    frame.assign(throughput_examples_per_s=NAN).to_csv(folder / "summary.csv", index=False)
    results = load_results(folder)
    titles = quantities(results)
    assert titles["dee_raw_fit"] == "DEE (raw fit), members ↑"
    assert titles["ece_debiased"] == "ECE % debiased ↓"
    assert not {"lonely", "half", "throughput_examples_per_s", "dee_raw_low"} & set(titles)
    row = data(results)[0]
    assert (row["ece_debiased_low"], row["dee_raw_fit_high"]) == (0.4, "Infinity")
    (choice,) = [param for param in chart(results)["params"] if param["name"] == "y"]
    assert {"dee_raw_fit", "ece_debiased", "nll", "macs_rel"} <= set(choice["bind"]["options"])


def test_the_figure_is_a_valid_specification_that_starts_at_dee_against_flops(report: Path) -> None:
    spec = chart(load_results(report / "rows"))
    start = {param["name"]: param.get("value") for param in spec["params"]}
    assert (start["x"], start["y"], start["controls"]) == ("macs_rel", "dee_raw", False)
    compiled = vl_convert.vegalite_to_vega(spec)
    bound = [signal["bind"]["name"] for signal in compiled["signals"] if "bind" in signal]
    families_shown = ["DE", "ED", "END²", "BN", "DBN", "a_b & c%"]
    assert bound == ["Horizontal", "Vertical", *families_shown, "Controls", "Every size of the deep ensemble"]


GENERATION = Path(__file__).resolve().parents[3] / "results/reference/digits-diffusion"


def test_another_task_starts_at_its_headline_against_its_axis() -> None:
    results = in_series(load_results(GENERATION))
    assert results.task
    spec = chart(results)
    params = {param["name"]: param for param in spec["params"]}
    assert (params["x"]["value"], params["y"]["value"]) == ("nfe", "energy")
    assert set(results.task["plotted_scores"]) - {"modes", "score_error", "nll"} <= set(params["y"]["bind"]["options"])
    assert params["titles"]["value"]["fd"] == "classifier-FD ↓"
    compiled = vl_convert.vegalite_to_vega(spec)
    bound = [signal["bind"] for signal in compiled["signals"] if "bind" in signal]
    switches = {bind["name"] for bind in bound if bind["input"] == "checkbox"}
    # A family of several labels is called by its name, one of a single label by that.
    families_shown = {"SE", "Training data", "aggregate", "MC dropout", "experts", "step-distillation"}
    assert switches == families_shown | {"Controls", "Every size of SE"}


def test_the_points_of_a_series_share_a_look_and_keep_their_names() -> None:
    rows = data(in_series(load_results(GENERATION)))
    summary = pd.read_csv(GENERATION / "summary.csv").set_index(["label", "size"])
    assert len(rows) == len(summary)
    for row in rows:
        known = summary.loc[row["name"], row["size"]]
        assert (row["energy"], row["fd_low"]) == pytest.approx((known["energy_mean"], known["fd_low"]))
        assert row["reference"] == (known["family"] == "score-ensemble")
    assert {row["name"] for row in rows if row["label"] == "Branches"} == {"Branches, 2 steps", "Branches, 4 steps"}


def test_scores_in_per_cent_and_equivalents_are_those_of_the_task() -> None:
    known = load_results(GENERATION)
    task = json.loads(json.dumps(known.task))
    task["scores"]["energy"]["percent"] = True
    task |= {"curves": ["worth"], "axis": ["size", "trees"]}
    values = {f"worth{end}": 1.5 for end in ("", "_low", "_high")}
    results = replace(known, meta=known.meta | {"task": task}, summary=known.summary.assign(**values))
    spec = chart(in_series(results))
    params = {param["name"]: param for param in spec["params"]}
    assert params["titles"]["value"] | {"size": "Trees", "worth": "Equivalent members ↑"} == params["titles"]["value"]
    factors = params["factors"]["value"]
    assert (factors["energy"], factors["fd"], factors["worth"]) == (100, 1, 1)
    assert """indexof(["worth"], x) >= 0""" in spec["encoding"]["x"]["axis"]["labelExpr"]
    vl_convert.vegalite_to_vega(spec)


def test_one_method_alone_is_a_valid_figure(tmp_path: Path) -> None:
    folder = write_results(tmp_path, METHODS[10:12], n=1)
    vl_convert.vegalite_to_vega(chart(load_results(folder)))


def test_families_of_one_name_are_told_apart(tmp_path: Path) -> None:
    shared = ("DE (shared blocks)", "shared", "shared", 2, 0.12, 0.11, 0.96, 1.3)
    named = families(load_results(write_results(tmp_path, [*METHODS, shared])))
    assert (named["de"], named["dbn"], named["shared"]) == ("DE", "DBN", "DE (shared blocks)")


def test_every_marker_has_a_shape() -> None:
    assert set(SHAPES) == {"o", *MARKERS}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("74.1 ± 2.0", 74.1),
        ("−0.0385 [−0.0425, −0.0345], p < 0.001", -0.0385),
        ("< 1 [< 1, 1.3]", -1e9),
        ("> 8", 1e9),
        ("~1.31×", 1.31),
        ("1.17×*", 1.17),
        ("1,234", 1234),
        ("≈ 0.240 (DER)", 0.24),
        ("5", 5),
    ],
)
def test_cells_are_sorted_by_their_value(text: str, key: float) -> None:
    assert float(sort_key(text)) == key


def test_cells_without_a_value_have_no_key() -> None:
    assert sort_key("–") == sort_key("") == ""


def test_raw_and_calibrated_scores_are_told_apart(report: Path) -> None:
    names = main_table(load_results(report / "rows")).header
    scales = {name: scale for name in names if (scale := scale_of(name))}
    raw = {"NLL ↓", "BS ↓", "ECE % ↓", "ECE % debiased ↓", "DEE (raw) ↑", "DEE (raw) fitted ↑"}
    assert {name for name, scale in scales.items() if scale == "raw"} == raw
    calibrated = {"cNLL ↓", "cECE % ↓", "cECE % debiased ↓", "DEE (calibrated) ↑", "DEE (calibrated) fitted ↑"}
    assert {name for name, scale in scales.items() if scale == "calibrated"} == calibrated
