"""The tables of a report: cells, marks and blocks, and their LaTeX, Markdown and CSV."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.report import read_results, render
from benchmarks.report.figures.figures import FIGURES
from benchmarks.report.figures.style import styles
from benchmarks.report.model import Results
from benchmarks.report.page.captions import captions
from benchmarks.report.page.sections import sections
from benchmarks.report.page.summary import summary
from benchmarks.report.tables.budget import budget_frame
from benchmarks.report.tables.formatting import (
    ReportTable,
    TableBlock,
    TableCell,
    decimals,
    dee_text,
    escape_md,
    escape_tex,
    fit_text,
    p_text,
    ratio_text,
    to_latex,
    to_markdown,
    with_interval,
)
from benchmarks.report.tables.main import comparisons_table, fewer_repetitions, main_table, sizes_table
from benchmarks.report.tables.runtimes import BestRuntime, best_runtime, runtimes_table, slower_than_flops
from benchmarks.report.tables.uncertainty import uncertainty_table
from dbn_core.errors import ArtefactError
from dbn_core.tasks.base import Score
from dbn_core.tasks.classification import Classification
from tests.benchmarks.report.made_up import DE_NLL, INF, METHODS, NAN, ODD, write_results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return read_results(write_results(tmp_path_factory.mktemp("rows")))


def test_latex_escapes_and_marks(results: Results) -> None:
    text = to_latex(main_table(results))
    assert r"a\_b \& c\%" in text
    assert r"END\textsuperscript{2}" in text
    assert r"$<$ 1" in text
    assert re.search(r"^DBN \(fixed\) & 5 & \\textbf\{97\.20 \$\\pm\$ 0\.12\}", text, re.MULTILINE)
    assert re.search(r"^DBN \(paper\) & 5 & \\underline\{97\.09", text, re.MULTILINE)
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert all(char not in "".join(body) for char in "²±×↑↓–−")
    rows = [line for line in body if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {19}
    assert text.count("{") == text.count("}") + text.count(r"\{") - text.count(r"\}")


def test_main_table_marks_the_right_cells_and_groups_ensembles_first(results: Results) -> None:
    table = main_table(results)
    assert [len(block.rows) for block in table.blocks] == [8, len(METHODS) - 8]
    column = table.header.index("NLL ↓")
    marks = {(row[0].text, row[1].text): row[column].mark for block in table.blocks for row in block.rows}
    assert {key: mark for key, mark in marks.items() if mark} == {
        ("DBN (fixed)", "5"): "best",
        ("DBN (paper)", "5"): "tied",
    }
    cells = {(row[0].text, row[1].text): [cell.text for cell in row] for block in table.blocks for row in block.rows}
    assert cells["ED", "3"][table.header.index("DEE (raw) ↑")] == "< 1"
    assert cells[ODD, "5"][table.header.index("DEE (raw) ↑")].startswith("> 8")
    assert cells[ODD, "5"][table.header.index("FLOPs rel.")] == "–"
    assert cells["BN", "2"][table.header.index("Latency rel., batch 1")] == "~1.31×"
    assert cells["DE", "1"][column] == "0.1210 ± 0.0021"
    assert cells["DE", "8"][table.header.index("cECE % debiased ↓")].startswith("-0.10 ± ")
    # Beyond the largest ensemble the fitted curve goes on, the measured one says only that.
    assert cells[ODD, "5"][table.header.index("DEE (raw) fitted ↑")] == "∞ [26.2, ∞]"
    assert cells["ED", "3"][table.header.index("DEE (raw) fitted ↑")] == "0.89 [0.9, 0.9]"


def test_comparisons_mark_what_is_better_and_what_cannot_be_told_apart(results: Results) -> None:
    table = comparisons_table(results)
    assert table.header == ["Method", "Size", "minus DE-1", "minus DE of that size"]
    cells = {(block.title, row[0].text, row[1].text): row[2:] for block in table.blocks for row in block.rows}
    assert cells["NLL ↓", "DBN (fixed)", "5"][0] == TableCell("−0.0385 [−0.0425, −0.0345], p < 0.001", "best")
    assert [cell.mark for cell in cells["NLL ↓", "DBN (fixed)", "5"]] == ["best", ""]
    assert [cell.mark for cell in cells["NLL ↓", "END²", "5"]] == ["", ""]
    assert cells["ACC (percentage points) ↑", "DBN (fixed)", "5"][0].mark == "best"


def test_sizes_table_has_a_column_for_each_size(results: Results) -> None:
    table = sizes_table(results)
    assert table.header == ["Method", "1 member", *(f"{m} members" for m in range(2, 9))]


def test_marks_and_verdicts_follow_the_corrected_test(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "rows")
    frame = pd.read_csv(folder / "comparisons.csv", keep_default_na=False)
    frame["p_holm"] = np.where(frame["reference"] == "DE-1", 0.2, 0.001)  # intervals leave out zero all the same
    frame.to_csv(folder / "comparisons.csv", index=False)
    results = read_results(folder)
    rows = comparisons_table(results).blocks[0].rows
    assert {row[2].mark for row in rows} == {"tied"}
    assert all(row[2].text.endswith("p = 0.20") for row in rows)
    assert "tied" not in {row[3].mark for row in rows if row[3].text}
    assert "Its NLL is not significantly different from that of DE-1" in " ".join(summary(results))
    assert results.test == "paired t test, corrected by Holm, 5 %"


def test_one_repetition_has_differences_without_interval_or_verdict(tmp_path: Path) -> None:
    folder = write_results(tmp_path, n=1)
    frame = pd.read_csv(folder / "comparisons.csv", keep_default_na=False)
    frame[["low", "high", "p_value", "p_holm"]] = ""
    frame.to_csv(folder / "comparisons.csv", index=False)
    results = read_results(folder)
    cells = [cell for block in comparisons_table(results).blocks for row in block.rows for cell in row[2:]]
    assert {cell.mark for cell in cells} == {""}
    assert TableCell("−0.0385") in cells
    assert "significant" not in " ".join(summary(results))


def test_rows_of_fewer_repetitions_are_named(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    assert fewer_repetitions(read_results(folder)) == ""
    frame = pd.read_csv(folder / "summary.csv")
    frame.loc[len(frame) - 1, "n"] = 2
    frame.to_csv(folder / "summary.csv", index=False)
    name = f"{frame['label'].iloc[-1]} (size {frame['size'].iloc[-1]})"
    assert fewer_repetitions(read_results(folder)) == f"Rows of fewer than 3 repetitions: {name}: 2."


def test_a_method_of_infinite_nll_is_in_the_tables_and_left_out_of_figures(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path, [*METHODS[:10], ("Vote", "vote", "vote", 3, INF, INF, 0.965, 3.0)]))
    assert all(FIGURES[name](results, styles(results)).axes for name in captions(results))
    [row] = [row for block in main_table(results).blocks for row in block.rows if row[0].text == "Vote"]
    header = main_table(results).header
    assert row[header.index("NLL ↓")].text == "∞"
    assert row[header.index("DEE (raw) ↑")].text == "< 1"
    [cells] = [
        row[2:] for block in comparisons_table(results).blocks[:1] for row in block.rows if row[0].text == "Vote"
    ]
    assert all("+∞" in cell.text for cell in cells)


def test_a_fitted_equivalent_that_says_nothing_has_no_column(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    frame = pd.read_csv(folder / "summary.csv")
    frame[["dee_raw_fit_low", "dee_raw_fit_high"]] = [0.0, INF]
    frame.to_csv(folder / "summary.csv", index=False)
    header = main_table(read_results(folder)).header
    assert "DEE (raw) fitted ↑" not in header
    assert "DEE (calibrated) fitted ↑" in header


def test_a_new_score_needs_no_new_rows_and_becomes_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write_results(tmp_path / "rows")
    monkeypatch.setattr(Classification, "scores", {**Classification.scores, "novel": Score("NOVEL")})
    assert "NOVEL ↓" not in main_table(read_results(rows)).header
    summary = pd.read_csv(rows / "summary.csv")
    new = {"novel_mean": 0.02, "novel_low": 0.01, "novel_high": 0.03, "novel_mark": ""}
    summary.assign(**new).to_csv(rows / "summary.csv", index=False)
    assert "NOVEL ↓" in main_table(read_results(rows)).header
    summary.assign(novel_mean=0.02).to_csv(rows / "summary.csv", index=False)
    with pytest.raises(ArtefactError, match="lacks the columns novel_mark, novel_low, novel_high"):
        read_results(rows)


UNCERTAINTY = [name for name, score in Classification.scores.items() if score.table == "uncertainty"]


def test_uncertainty_has_a_table_of_its_own_and_the_main_one_keeps_its_columns(results: Results) -> None:
    table = uncertainty_table(results)
    assert table is not None
    headings = [Classification.scores[name].heading for name in UNCERTAINTY]
    assert [name for name in table.header[2:] if "DEE" not in name] == headings
    assert not {*headings, "DEE (AUGRC) ↑"} & set(main_table(results).header)
    assert [*results.curves_of("main")] == ["dee_raw", "dee_cal"]
    place = table.header.index("AUGRC % ↓")
    assert table.header[place + 1] == "DEE (AUGRC) ↑"
    cells = {(row[0].text, row[1].text): [cell.text for cell in row] for block in table.blocks for row in block.rows}
    assert cells["ED", "3"][place : place + 2] == ["1.92 ± 0.21", "< 1"]
    assert cells["DE", "1"][table.header.index("MI")] == "–"
    assert cells["DE", "2"][table.header.index("MI")] == "0.0500 ± 0.0021"


def test_rows_without_scores_of_uncertainty_say_so(tmp_path: Path) -> None:
    rows = write_results(tmp_path)
    (rows / "risk_coverage.csv").unlink()
    summary = pd.read_csv(rows / "summary.csv")
    new = [column for column in summary if column.startswith((*UNCERTAINTY, "dee_augrc"))]
    summary.drop(columns=new).to_csv(rows / "summary.csv", index=False)
    results = read_results(rows)
    assert uncertainty_table(results) is None
    found = {each.title: each.parts for each in sections(results, budget_frame(results), captions(results))}
    [part] = found["Selective prediction and uncertainty"]
    assert part.text == "Not computed: the predictions behind these rows are not stored."
    assert "risk_coverage" not in captions(results)


def timed(folder: Path) -> Path:
    """Results whose rows have times in two runtimes; at batch 1 a DBN is slower than its FLOPs say."""
    write_results(folder)
    summary = pd.read_csv(folder / "summary.csv")
    rel = summary["macs_rel"]
    summary["latency_batch_p50_ms"] = 100 * rel
    for place, ms in (("b1", 0.5), ("batch", 40.0)):
        slower = np.where((summary["family"] == "dbn") & (place == "b1"), 1.9 / 1.17, 1.0)
        summary[f"latency_onnxruntime_{place}_p50_ms"] = ms * rel * slower
        summary[f"latency_onnxruntime_{place}_ratio"] = rel * slower
    # Here eager torch is the faster one, and no slower than the FLOPs say.
    fast = (summary["label"] == "DBN (paper)") & (summary["size"] == 3)
    summary.loc[fast, ["latency_b1_p50_ms", "latency_b1_ratio"]] = [0.1, 1.0]
    summary.to_csv(folder / "summary.csv", index=False)
    return folder


def test_methods_slower_than_their_flops_are_named(tmp_path: Path) -> None:
    results = read_results(timed(tmp_path / "rows"))
    assert results.runtimes == ["eager", "onnxruntime"]
    said = slower_than_flops(results)
    assert said[0] == (
        "At batch 1, DBN (fixed) (size 3) in its fastest runtime (onnxruntime) takes 1.90 times as long as one "
        "network, for 1.17 times the FLOPs."
    )
    assert not [line for line in said if "DBN (paper) (size 3)" in line or "BN (size" in line.replace("DBN", "")]
    best = best_runtime(results.summary[results.summary["label"] == "DBN (paper)"].iloc[0], "b1")
    assert best == BestRuntime("eager", 0.1, 1.0)
    table = runtimes_table(results)
    assert table is not None
    cells = {(row[0].text, row[1].text): [cell.text for cell in row] for row in table.blocks[0].rows}
    assert cells["DBN (fixed)", "3"][table.header.index("Best runtime, batch 1")] == "onnxruntime"
    assert cells["DBN (fixed)", "3"][table.header.index("Rel., batch 1")] == "1.90×"
    assert cells["DBN (fixed)", "3"][table.header.index("onnxruntime, batch 256 (ms)")] == "46.8"
    render(tmp_path / "rows", tmp_path / "out")
    assert said[0] in (tmp_path / "out/report.html").read_text().replace("&#39;", "'")
    assert said[0].replace("×", "x") in (tmp_path / "out/report.md").read_text()
    assert "latency_onnxruntime_b1_ratio" in (tmp_path / "out/tables/main.csv").read_text()


def test_rows_without_times_have_no_table_of_them(results: Results) -> None:
    assert not results.runtimes
    assert not slower_than_flops(results)
    assert runtimes_table(results) is None


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (2.414, 1.9, 3.04, "2.41 [1.9, 3.0]"),
        (-INF, -INF, -INF, "< 1"),
        (INF, INF, INF, "> 8"),
        (-INF, -INF, 1.26, "< 1 [< 1, 1.3]"),
        (7.5, 6.1, INF, "7.50 [6.1, > 8]"),
        (3.0, NAN, NAN, "3.00"),
        (NAN, NAN, NAN, "–"),
    ],
)
def test_dee_text(value: float, low: float, high: float, text: str) -> None:
    assert dee_text(value, low, high, 8) == text


def test_numbers_become_text() -> None:
    assert fit_text(11.2, 9.14, 16.01) == "11.20 [9.1, 16.0]"
    assert fit_text(INF, 21.3, INF) == "∞ [21.3, ∞]"
    assert fit_text(0.71, 0, 1.04) == "0.71 [0.0, 1.0]"
    assert [fit_text(312.4, NAN, NAN), fit_text(NAN, NAN, NAN)] == ["312", "–"]
    assert with_interval(99.21, 99.1, 99.32, 1) == "99.2 ± 0.1"
    assert with_interval(99.21, NAN, NAN, 2) == "99.21"
    assert with_interval(NAN, NAN, NAN, 2) == "–"
    assert with_interval(INF, NAN, NAN, 2) == "∞"
    assert with_interval(-INF, -INF, NAN, 2) == "−∞"
    assert decimals([0.12, 0.15, NAN], 1, 2) == 2
    assert decimals([1.2], 1, 2) == 1
    assert decimals([NAN], 3, 4) == 4
    assert ratio_text(1.333) == "1.33×"
    assert ratio_text(1.333, noisy=True) == "~1.33×"
    assert [p_text(p) for p in (0.0002, 0.012, 0.5, NAN)] == ["p < 0.001", "p = 0.012", "p = 0.50", "p –"]


def test_escapes() -> None:
    assert escape_tex("a_b & c% #1 {x} ~ \\ ^ $") == (
        r"a\_b \& c\% \#1 \{x\} \textasciitilde{} \textbackslash{} \textasciicircum{} \$"
    )
    assert escape_md("a|b <i> < 1 *x*") == r"a\|b &lt;i> < 1 \*x\*"
    table = ReportTable(
        ["Method", "NLL"],
        [TableBlock("", [[TableCell("a|b"), TableCell("1", "best")], [TableCell("c"), TableCell("2", "tied")]])],
    )
    assert "**1**" in to_markdown(table)
    assert "<ins>2</ins>" in to_markdown(table)
    assert "a|b & \\textbf{1} \\\\" in to_latex(table)


@pytest.mark.parametrize("label", ["[2cm] ED", "*", " *ED"])
def test_no_label_becomes_an_option_of_the_latex_command_before_it(label: str) -> None:
    rows = [[TableCell("DE"), TableCell("1")], [TableCell(label), TableCell("[1, 2]")]]
    text = to_latex(ReportTable(["Method", "NLL"], [TableBlock("", rows), TableBlock("Others", rows[::-1])]))
    assert text.count(f"{label} & ") == 2
    assert not re.search(r"(?:\\\\|rule)\s*[\[*]", text)


def test_no_text_of_the_csv_files_is_a_formula(tmp_path: Path) -> None:
    link = '=HYPERLINK("http://example.org","y")'
    odd = (*(link, "-2+3", "+1+cmd", "@SUM(1)", "\tx", "a=b"), "-12.5", "-inf")
    rows = [(label, f"m{i}", "ed", 3, 0.09, 0.08, 0.968, 1.0) for i, label in enumerate(odd)]
    written = render(write_results(tmp_path / "rows", [*METHODS[:8], *rows]), tmp_path / "out")
    tables = {path.name: pd.read_csv(path, dtype=str) for path in written if path.suffix == ".csv"}
    safe = {"DE", *(f"'{label}" for label in odd[:5]), *odd[5:]}
    for name in ("main.csv", "sizes.csv"):
        assert set(tables[name]["label"]) == safe
    assert set(tables["comparisons.csv"]["label"]) == safe - {"DE"}
    assert "-" in {text[0] for text in tables["comparisons.csv"]["difference"]}  # numbers stay numbers
    wide = tables["sizes.csv"].set_index(["metric", "label"])
    assert float(wide.loc[("nll", "DE"), "3"]) == pytest.approx(DE_NLL[2])
    assert wide.loc[("nll", "a=b")].isna().sum() == 7
