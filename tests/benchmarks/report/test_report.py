"""The report: rendered from a made-up folder of results, then read back."""

from __future__ import annotations

import json
import math
import re
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from benchmarks.report import load_results, render
from benchmarks.report.figures.diagnostics import representative_sizes
from benchmarks.report.figures.figures import FIGURES as DRAWN
from benchmarks.report.figures.figures import RC
from benchmarks.report.figures.labels import stack
from benchmarks.report.figures.overlay import published_points
from benchmarks.report.figures.ranges import crowded, spans
from benchmarks.report.figures.style import ADDED_COLOUR, CONTROL_COLOUR, styles
from benchmarks.report.model import classification
from benchmarks.report.page.captions import captions
from benchmarks.report.page.summary import summary
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
from dbn_core.errors import ArtefactError
from dbn_core.tasks.base import Score
from dbn_core.tasks.classification import Classification
from tests.support.sketches import drawn

NAN, INF = float("nan"), float("inf")
ODD = "a_b & c%"  # a label that LaTeX, HTML and Markdown all could trip over

#         label, method, family, size, nll, cnll, acc, macs_rel
DE_NLL = [0.1210, 0.0905, 0.0806, 0.0762, 0.0735, 0.0718, 0.0706, 0.0698]
METHODS = [
    *[("DE", "de", "de", m + 1, nll, nll * 0.97, 0.9660 + 0.011 * m / (m + 2), m + 1) for m, nll in enumerate(DE_NLL)],
    ("ED", "ed", "ed", 3, 0.1280, 0.1120, 0.9675, 1.0),
    ("ED", "ed", "ed", 5, 0.1310, 0.1105, 0.9681, 1.0),
    ("END²", "end2", "end2", 3, 0.1420, 0.1190, 0.9662, 1.0),
    ("END²", "end2", "end2", 5, 0.1450, 0.1210, 0.9658, 1.0),
    ("BN", "bn", "bn", 2, 0.1010, 0.0960, 0.9688, 1.21),
    ("BN", "bn", "bn", 3, 0.0975, 0.0930, 0.9695, 1.41),
    ("BN", "bn", "bn", 5, 0.0962, 0.0921, 0.9697, 1.82),
    ("DBN (fixed)", "dbn[preset=fixed]", "dbn", 3, 0.0861, 0.0828, 0.9712, 1.17),
    ("DBN (fixed)", "dbn[preset=fixed]", "dbn", 5, 0.0825, 0.0800, 0.9720, 1.33),
    ("DBN (paper)", "dbn[preset=paper]", "dbn", 3, 0.0905, 0.0850, 0.9706, 1.17),
    ("DBN (paper)", "dbn[preset=paper]", "dbn", 5, 0.0880, 0.0835, 0.9709, 1.33),
    (ODD, "odd", "odd", 5, 0.0660, 0.0655, 0.9600, NAN),
]


def _dee(nll: float, curve: list[float]) -> float:
    if nll > curve[0]:
        return -INF
    return float(np.interp(-nll, [-v for v in curve], range(1, len(curve) + 1))) if nll >= curve[-1] else INF


def _summary_row(row: tuple, n: int) -> dict[str, object]:
    label, method, family, size, nll, cnll, acc, rel = row
    means = {"acc": acc, "nll": nll, "brier": nll * 0.45, "ece": 0.004 + nll * 0.05, "cnll": cnll}
    means |= {"ece_debiased": nll * 0.05, "cece_debiased": -0.001}
    means |= {"cbrier": cnll * 0.45, "cece": 0.004, "temperature": 1.1, "kl_to_ensemble": nll / 3}
    half = {"acc": 0.0012, "ece": 0.0006, "cece": 0.0005, "temperature": 0.02}
    out: dict[str, object] = {"method": method, "label": label, "family": family, "size": size, "n": n}
    for score, about in classification()["scores"].items():
        width = half.get(score, 0.0021) if n > 1 else NAN
        out |= {
            f"{score}_mean": means[score],
            f"{score}_low": means[score] - width,
            f"{score}_high": means[score] + width,
        }
        if about["better"]:
            out[f"{score}_mark"] = {"DBN (fixed)5": "best", "DBN (paper)5": "tied"}.get(f"{label}{size}", "")
    for kind, value, curve in (("raw", nll, DE_NLL), ("cal", cnll, [v * 0.97 for v in DE_NLL])):
        out[f"dee_{kind}"] = float(size) if family == "de" else _dee(value, curve)
        for end, shift in (("low", 0.0021), ("high", -0.0021)):
            out[f"dee_{kind}_{end}"] = NAN if family == "de" or n == 1 else _dee(value + shift, curve)
        for end, shift in (("", 0), ("_low", 0.0021), ("_high", -0.0021)):
            above = value + shift - 0.066
            out[f"dee_{kind}_fit{end}"] = 0.055 / above if above > 0 else INF
    single = family == "de"
    own = {"de": 61.0 * size, "ed": 70.0, "end2": 82.0, "bn": 45.0 * (size - 1), "dbn": 260.0}.get(family, NAN)
    return out | {
        **{"params": 272_474 * rel, "params_rel": rel, "macs": 4.1e7 * rel, "flops": 8.2e7 * rel, "macs_rel": rel},
        **{"latency_b1_p50_ms": 3.1 * rel, "latency_b1_p95_ms": 3.6 * rel, "latency_b1_ratio": rel * 1.08},
        **{"latency_batch_ratio": rel * 1.02, "throughput_examples_per_s": 900 / rel, "latency_noisy": family == "bn"},
        **{"train_seconds": own, "train_seconds_with_members": own if single else own + 61.0 * size},
        **{"student_passes": 1e6, "teacher_passes": NAN if single else 1e6 * size},
    }


def _reliability(row: tuple, rng: np.random.Generator) -> list[dict[str, object]]:
    label, method, family, size = row[:4]
    share = np.array([0, 0, 0, 1, 3, 6, 9, 14, 20, 28, 40, 58, 95, 210, 4900])
    out = []
    for calibrated, slope in ((False, 0.10), (True, 0.02)):
        for b, count in enumerate(share):
            confidence = (b + 0.6) / 15 if count else NAN
            accuracy = confidence - slope * (1 - confidence) * 2 + rng.normal(0, 0.015)
            name = {"method": method, "label": label, "family": family, "size": size, "calibrated": calibrated}
            edges = {"bin": b, "lower": b / 15, "upper": (b + 1) / 15, "count": count}
            out.append(name | edges | {"confidence": confidence, "accuracy": accuracy})
    return out


def write_results(folder: Path, methods: list[tuple] = METHODS, n: int = 3) -> Path:
    """Write plausible results of a suite: censored equivalents, missing costs, a failed cell, odd labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    summary = pd.DataFrame([_summary_row(row, n) for row in methods])
    rows = [
        {"suite": "digits", "method": m, "label": label, "family": f, "size": size, "repetition": r}
        | {"split": "test", "metric": metric, "value": value + rng.normal(0, 0.001)}
        for label, m, f, size, nll, cnll, acc, _ in methods
        for r in range(n)
        for metric, value in (("acc", acc), ("nll", nll), ("cnll", cnll))
    ]
    comparisons = [
        {"method": m, "label": label, "size": size, "reference": reference, "metric": metric}
        | {"difference": d, "low": d - 0.004, "high": d + 0.004, "p_value": min(1.0, math.exp(-abs(d) * 600))}
        | {"p_holm": min(1.0, 1.5 * math.exp(-abs(d) * 600))}
        for label, m, f, size, nll, cnll, acc, _ in methods
        if f != "de"
        for reference, at in (("DE-1", 0), (f"DE-{size}", size - 1))
        for metric, d in (("nll", nll - DE_NLL[at]), ("cnll", cnll - 0.97 * DE_NLL[at]), ("acc", acc - 0.966))
    ]
    tables = {"summary": summary, "rows": pd.DataFrame(rows), "comparisons": pd.DataFrame(comparisons)}
    tables["reliability"] = pd.DataFrame([line for row in methods for line in _reliability(row, rng)])
    for name, frame in tables.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    meta = {
        "suite": "digits",
        "title": "Digits: <fast> ensembling",
        "description": "8x8 handwritten digits, small ResNets with filter response normalisation; runs on a laptop.",
        "command": "dbn-bench run digits",
        "report_command": "dbn-bench report digits",
        "date": "2026-01-31",
        "dataset": {
            "title": "scikit-learn digits",
            "fingerprint": "0123456789abcdef0123",
            "train": 1097,
            "classes": 10,
        },
        "network": "resnet[depth=8,width=16]",
        "repetitions": n,
        "budget": ["members: 60 epochs of SGD, batch 64", "distillation and bridges: 120 epochs of Adam, batch 64"],
        "protocol": ["temperatures are fitted on the validation split; nothing is selected on the test split"],
        "versions": {"python": "3.11.9", "torch": "2.15.0", "dbn-bench": "0.1.0"},
        "hardware": {"cpu": "an x86-64 processor", "cores": 2, "gpu": None, "threads_per_process": 1},
        "latency": {"batch_size": 256, "batch_repeats": 20, "noisy": True},
        "failures": [{"cell": "digits/end2/size=8/rep=1", "reason": "loss became <NaN> at step 120"}],
        "dee": {"max_size": 8},
        "statistics": ["Intervals are of 95 %, by <Student>.", "They speak of other pools."],
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with drawn():
        render(write_results(folder / "rows"), folder / "out")
    return folder


FIGURES = (
    *("dee_vs_flops", "pareto_flops", "pareto_training", "nll_vs_size", "acc_vs_size", "reliability"),
    "training_cost",
)


def test_writes_every_file_twice_with_the_same_bytes(report: Path, tmp_path: Path) -> None:
    with drawn():
        written = render(report / "rows", tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in written}
    assert names == {
        *("report.md", "report.html"),
        *(f"tables/{name}.{end}" for name in ("main", "sizes", "comparisons") for end in ("csv", "tex")),
        *(f"figures/{name}.{end}" for name in FIGURES for end in ("png", "pdf")),
    }
    for name in names:
        first, second = (report / "out" / name).read_bytes(), (tmp_path / name).read_bytes()
        assert first, name
        assert first == second, name


def test_html_stands_alone_and_is_escaped(report: Path) -> None:
    page = (report / "out/report.html").read_text()
    bare = re.sub(r"base64,[^\"]+|<script.*?</script>", "", page, flags=re.DOTALL)
    assert "http" not in bare
    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=\"(?!data:)", bare)
    assert bare.count("<img ") == len(FIGURES) == len(re.findall(r'alt="[^"]{20,}"', bare))
    assert page.index("</footer>") < page.index("<script")  # the text comes first
    sections = set(re.findall(r'<(?:section|footer) id="([^"]+)"', page))
    assert set(re.findall(r'<a href="#([^"]+)"', page)) == sections > {"summary", "scores-and-cost", "measured"}
    assert "Digits: &lt;fast&gt; ensembling" in page
    assert "<fast>" not in page
    assert "a_b &amp; c%" in page
    assert "loss became &lt;NaN&gt; at step 120" in page
    assert "END²" in page


def test_markdown_shows_gaps_figures_and_the_footer(report: Path) -> None:
    page = (report / "out/report.md").read_text()
    assert "**Failed, and missing below:**" in page
    assert r"a\_b & c%" in page
    assert all(f"(figures/{name}.png)" in page for name in FIGURES)
    assert "0123456789ab" in page
    assert "0123456789abc" not in page
    assert "torch 2.15.0" in page
    assert "Latency rel., batch 256" in page
    assert "None" not in page
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", page.lower().replace("&lt;nan>", ""))
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert {line.count("|") - line.count(r"\|") for line in rows} == {21, 10, 5}


def test_latex_escapes_and_marks(report: Path) -> None:
    text = (report / "out/tables/main.tex").read_text()
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


def test_main_table_marks_the_right_cells_and_groups_ensembles_first(report: Path) -> None:
    table = main_table(load_results(report / "rows"))
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


def test_controls_have_a_block_of_their_own_and_stay_in_the_background_of_figures(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "rows")
    meta = json.loads((folder / "meta.json").read_text())
    controls = ["DBN (paper)", ODD]
    (folder / "meta.json").write_text(json.dumps(meta | {"controls": controls}))
    results = load_results(folder)
    assert not set(controls) & set(styles(results))
    blocks = {block.title: {row[0].text for row in block.rows} for block in main_table(results).blocks}
    assert blocks["Controls"] == set(controls)
    assert blocks["Other methods"] == {"ED", "END²", "BN", "DBN (fixed)"}
    render(folder, tmp_path / "out")
    page = (tmp_path / "out/report.md").read_text()
    assert "Grey dots are the controls" in page
    assert page.count("Controls are left out") == 3
    with matplotlib.rc_context(RC):
        figure = DRAWN["dee_vs_flops"](results, styles(results))
    dots = [line for line in figure.axes[0].lines if line.get_color() == CONTROL_COLOUR]
    paper = results.summary[results.summary["label"] == "DBN (paper)"]  # the other control has no known cost
    assert np.sort(np.concatenate([dot.get_ydata() for dot in dots])) == pytest.approx(np.sort(paper["dee_raw"]))
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "controls"


def test_a_run_of_controls_alone_is_about_them(tmp_path: Path) -> None:
    folder = write_results(tmp_path, [row for row in METHODS if row[2] in ("de", "ed")])
    (folder / "meta.json").write_text(json.dumps({"controls": ["ED"]}))
    results = load_results(folder)
    assert not results.summary["control"].any()
    assert set(styles(results)) == {"DE", "ED"}


def test_comparisons_mark_what_is_better_and_what_cannot_be_told_apart(report: Path) -> None:
    table = comparisons_table(load_results(report / "rows"))
    assert table.header == ["Method", "Size", "minus DE-1", "minus DE of that size"]
    cells = {(block.title, row[0].text, row[1].text): row[2:] for block in table.blocks for row in block.rows}
    assert cells["NLL ↓", "DBN (fixed)", "5"][0] == TableCell("−0.0385 [−0.0425, −0.0345], p < 0.001", "best")
    assert [cell.mark for cell in cells["NLL ↓", "DBN (fixed)", "5"]] == ["best", ""]
    assert [cell.mark for cell in cells["NLL ↓", "END²", "5"]] == ["", ""]
    assert cells["ACC (percentage points) ↑", "DBN (fixed)", "5"][0].mark == "best"


def test_sizes_table_has_a_column_for_each_size(report: Path) -> None:
    table = sizes_table(load_results(report / "rows"))
    assert table.header == ["Method", "1 member", *(f"{m} members" for m in range(2, 9))]
    wide = pd.read_csv(report / "out/tables/sizes.csv")
    assert list(wide["metric"].unique()) == ["acc", "nll", "cnll"]
    assert wide.set_index(["metric", "label"]).loc[("nll", "DE"), "3"] == pytest.approx(DE_NLL[2])
    assert wide.set_index(["metric", "label"]).loc[("nll", "ED")].isna().sum() == 6


def test_summary_names_the_best_method_with_its_worth_and_cost(report: Path) -> None:
    text = " ".join(summary(load_results(report / "rows")))
    assert f"{ODD} (size 5) has the best NLL, 0.066" in text
    assert "> 8" in text
    assert "Its NLL is significantly lower than that of DE-1" in text


def test_summary_says_when_nothing_beats_one_network(tmp_path: Path) -> None:
    weak = [row for row in METHODS if row[2] in ("de", "end2")]
    text = " ".join(summary(load_results(write_results(tmp_path, weak))))
    assert "No method is better than a single network on raw NLL or temperature-scaled NLL." in text
    assert "END² (size 3)" in text


def test_summary_says_which_methods_are_tied(tmp_path: Path) -> None:
    text = " ".join(summary(load_results(write_results(tmp_path, METHODS[:-1]))))
    assert "DBN (fixed) (size 5) has the best NLL, 0.0825, at 1.33× the FLOPs and 1.44× the batch-1 latency" in text
    assert "Its difference in NLL to DBN (paper) (size 5) is not significant (paired t test, corrected" in text


def test_marks_and_verdicts_follow_the_corrected_test(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "rows")
    frame = pd.read_csv(folder / "comparisons.csv", keep_default_na=False)
    frame["p_holm"] = np.where(frame["reference"] == "DE-1", 0.2, 0.001)  # intervals leave out zero all the same
    frame.to_csv(folder / "comparisons.csv", index=False)
    results = load_results(folder)
    rows = comparisons_table(results).blocks[0].rows
    assert {row[2].mark for row in rows} == {"tied"}
    assert all(row[2].text.endswith("p = 0.20") for row in rows)
    assert "tied" not in {row[3].mark for row in rows if row[3].text}
    assert "Its NLL is not significantly different from that of DE-1" in " ".join(summary(results))
    render(folder, tmp_path / "out")
    page = (tmp_path / "out/report.md").read_text()
    assert "p-value (paired t test, corrected by Holm, 5 %)" in page
    assert "They speak of other pools." in page
    assert "by &lt;Student>." in page


def test_one_repetition_has_differences_without_interval_or_verdict(tmp_path: Path) -> None:
    folder = write_results(tmp_path, n=1)
    frame = pd.read_csv(folder / "comparisons.csv", keep_default_na=False)
    frame[["low", "high", "p_value", "p_holm"]] = ""
    frame.to_csv(folder / "comparisons.csv", index=False)
    results = load_results(folder)
    cells = [cell for block in comparisons_table(results).blocks for row in block.rows for cell in row[2:]]
    assert {cell.mark for cell in cells} == {""}
    assert TableCell("−0.0385") in cells
    assert "significant" not in " ".join(summary(results))


def test_rows_of_fewer_repetitions_are_named(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    assert fewer_repetitions(load_results(folder)) == ""
    frame = pd.read_csv(folder / "summary.csv")
    frame.loc[len(frame) - 1, "n"] = 2
    frame.to_csv(folder / "summary.csv", index=False)
    name = f"{frame['label'].iloc[-1]} (size {frame['size'].iloc[-1]})"
    assert fewer_repetitions(load_results(folder)) == f"Rows of fewer than 3 repetitions: {name}: 2."


@pytest.mark.parametrize("methods", [METHODS[:3], METHODS[10:12]])
def test_renders_one_repetition_and_few_methods(tmp_path: Path, methods: list[tuple]) -> None:
    folder = write_results(tmp_path / "rows", methods, n=1)
    (folder / "meta.json").write_text("{}")
    for name in ("comparisons", "reliability"):
        header = (write_results(tmp_path / "full") / f"{name}.csv").read_text().splitlines()[0]
        (folder / f"{name}.csv").write_text(header + "\n")
    render(folder, tmp_path / "out")
    page = (tmp_path / "out/report.md").read_text()
    assert "Benchmark report" in page
    assert "±" not in page.split("## How")[0].replace("± half", "")


def test_a_method_of_infinite_nll_is_in_the_tables_and_left_out_of_figures(tmp_path: Path) -> None:
    with drawn():
        written = render(
            write_results(tmp_path / "rows", [*METHODS, ("Vote", "vote", "vote", 3, INF, INF, 0.965, 3.0)]), tmp_path
        )
    assert {f"{name}.png" for name in FIGURES} <= {path.name for path in written}
    results = load_results(tmp_path / "rows")
    [row] = [row for block in main_table(results).blocks for row in block.rows if row[0].text == "Vote"]
    header = main_table(results).header
    assert row[header.index("NLL ↓")].text == "∞"
    assert row[header.index("DEE (raw) ↑")].text == "< 1"
    [cells] = [
        row[2:] for block in comparisons_table(results).blocks[:1] for row in block.rows if row[0].text == "Vote"
    ]
    assert all("+∞" in cell.text for cell in cells)


def test_a_missing_column_or_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    pd.read_csv(folder / "summary.csv").drop(columns="dee_raw_low").to_csv(folder / "summary.csv", index=False)
    with pytest.raises(ArtefactError, match=r"summary\.csv lacks the column dee_raw_low; run `dbn-bench run"):
        load_results(folder)
    write_results(tmp_path)
    (folder / "reliability.csv").unlink()
    with pytest.raises(ArtefactError, match=r"reliability\.csv is missing; run `dbn-bench run"):
        load_results(folder)
    write_results(tmp_path)
    (folder / "meta.json").write_text("{")
    with pytest.raises(ArtefactError, match=r"meta\.json is not readable JSON"):
        load_results(folder)


def test_a_value_that_is_no_number_is_named(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    frame = pd.read_csv(folder / "rows.csv", dtype=str)
    frame.loc[0, "value"] = "fast"
    frame.to_csv(folder / "rows.csv", index=False)
    with pytest.raises(ArtefactError, match="value that is no number"):
        load_results(folder)


def test_labels_shared_by_two_methods_give_way_to_the_spec(tmp_path: Path) -> None:
    twin = ("ED", "ed[temperature=2]", "ed", 3, 0.12, 0.11, 0.96, 1.0)
    results = load_results(write_results(tmp_path, [*METHODS, twin]))
    assert {"ed", "ed[temperature=2]"} <= set(results.summary["label"])
    assert "ED" not in set(results.rows["label"])


def test_one_colour_for_each_label_and_a_neutral_one_for_ensembles(report: Path) -> None:
    chosen = styles(load_results(report / "rows"))
    assert len({style.colour for style in chosen.values()}) == len(chosen)
    assert [label for label, style in chosen.items() if style.reference] == ["DE"]


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


def places(figure: Figure) -> list[set[tuple[float, float]]]:
    """What each panel draws as a point of ours or a published one: within its axis, censored values left out."""
    found = []
    for ax in figure.axes:
        points = [tuple(at) for drawn in ax.collections for at in np.asarray(drawn.get_offsets()).tolist()]
        found.append({(round(x, 6), round(y, 6)) for x, y in points if ax.get_xlim()[0] <= x <= ax.get_xlim()[1]})
    return found


def test_every_point_of_the_dee_figure_stands_at_its_cost_and_its_equivalent(report: Path) -> None:
    results = load_results(report / "rows")
    with matplotlib.rc_context(RC):
        figure = DRAWN["dee_vs_flops"](results, styles(results))
    assert len(figure.axes) == 4
    panels = places(figure)
    whole, near = spans(results)
    assert whole[0] < 1 < 1.82 < whole[1]
    assert near is not None
    assert near[0] < 1 < 1.33 < near[1] < 1.41  # ED, END², DBN and the smallest BN
    for row, kind in enumerate(("raw", "cal")):
        rows = results.others[results.others["macs_rel"].notna() & np.isfinite(results.others[f"dee_{kind}"])]
        all_of_it = {(x, round(y, 6)) for x, y in zip(rows["macs_rel"], rows[f"dee_{kind}"], strict=True)}
        assert all_of_it <= panels[2 * row]
        assert {x for x, _ in panels[2 * row]} == set(results.others["macs_rel"].dropna())  # the censored ones too
        assert {at for at in all_of_it if near[0] <= at[0] <= near[1]} <= panels[2 * row + 1]
        assert {x for x, _ in panels[2 * row + 1]} == {1.0, 1.17, 1.21, 1.33}


def test_labels_of_the_dee_figure_name_every_point_once_and_do_not_overlap() -> None:
    results = load_results(Path(__file__).resolve().parents[3] / "results/reference/cifar10-small")
    with matplotlib.rc_context(RC):
        figure = DRAWN["dee_vs_flops"](results, styles(results))
        renderer = FigureCanvasAgg(figure).get_renderer()
    shown = results.others[~results.others["control"] & results.others["macs_rel"].notna()]
    names = [f"{label}, {size}" for label, size in zip(shown["label"], shown["size"], strict=True)]
    for row, kind in enumerate(("raw", "cal")):
        texts = [text for ax in figure.axes[2 * row : 2 * row + 2] for text in ax.texts if text.get_text()]
        published = [f"{p.method}, {p.size}" for p in published_points(results) if p.kind == kind and p.y > 0]
        ensembles = [f"DE-{m}" for m in (2, 3) if m < figure.axes[0].get_xlim()[1]]
        assert sorted(text.get_text() for text in texts) == sorted([*names, *published, *ensembles])
        boxes = [Text.get_window_extent(text, renderer) for text in texts]
        assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_costs_are_enlarged_where_most_of_them_crowd() -> None:
    low, high = crowded(np.array([1.0, 1.0, 1.1, 1.16, 1.16, 1.2, 2.4]), 1.5)
    assert (low, high) == pytest.approx((0.98, 1.22))
    assert crowded(np.array([1.0, 1.5, 2.0, 2.5]), 1.6) is None  # spread already
    assert crowded(np.array([1.16, 1.16, 1.16]), 1.1) is None  # nothing would spread
    assert crowded(np.array([1.0866, 1.0867, 1.0868, 1.0867]), 1.1) is None  # hardly anything would
    assert crowded(np.array([]), 1.1) is None


@given(st.lists(st.floats(0, 10), max_size=12), st.floats(0.01, 2))
def test_stacked_labels_keep_their_distance_order_and_limits(heights: list[float], gap: float) -> None:
    moved = stack(heights, gap, 0, 10)
    least = min(gap, 10 / max(1, len(heights) - 1))
    ordered = moved[np.argsort(heights, kind="stable")]
    assert (np.diff(ordered) >= least - 1e-9).all()
    assert ((moved >= -1e-9) & (moved <= 10 + 1e-9)).all()


def test_stacked_labels_move_no_further_than_they_must() -> None:
    assert stack([1.0, 5.0, 9.0], 1, 0, 10) == pytest.approx([1, 5, 9])
    assert stack([5.0, 5.0, 9.0, 5.0], 1, 0, 10) == pytest.approx([4, 5, 9, 6])
    assert stack([0.0, 0.1], 1, 0, 10) == pytest.approx([0, 1])


def test_representative_size_is_the_commonest_or_the_nearest() -> None:
    frame = pd.DataFrame({"label": ["DE", "DE", "A", "A", "B", "C"], "size": [1, 5, 3, 5, 2, 5]})
    assert representative_sizes(frame) == {"DE": 5, "A": 5, "B": 2, "C": 5}


def test_the_report_imports_no_torch_and_nothing_of_ours_that_might() -> None:
    for path in Path(load_results.__code__.co_filename).parent.rglob("*.py"):
        imported = re.findall(r"^\s*(?:from|import) ([\w.]+)", path.read_text(), re.MULTILINE)
        ours = [name for name in imported if name.startswith(("benchmarks", "baselines", "dbn_core", "torch"))]
        # None of these imports torch; of `published` see test_published.py.
        light = ("dbn_core.errors", "dbn_core.files", "benchmarks.published", "benchmarks.environment")
        light += ("benchmarks.statistics", "dbn_core.tasks.base", "dbn_core.tasks.classification")
        assert all(name.startswith("benchmarks.report") or name in light for name in ours), path


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
    results = load_results(timed(tmp_path / "rows"))
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


def test_rows_without_times_have_no_section_of_them(report: Path) -> None:
    results = load_results(report / "rows")
    assert not results.runtimes
    assert not slower_than_flops(results)
    assert runtimes_table(results) is None
    assert "Time of one prediction" not in (report / "out/report.md").read_text()


def test_what_was_not_reached_is_not_called_failed_and_commands_are_the_readers(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "rows", METHODS[:10])
    meta = json.loads((folder / "meta.json").read_text())
    failures = [
        {"cell": "digits/late", "reason": "not made: left out of this run, or its time was up"},
        {"cell": "digits/broken", "reason": "its worker process died"},
    ]
    command = "dbn-bench run digits --add 'ed@5' --publish"
    (folder / "meta.json").write_text(json.dumps(meta | {"failures": failures, "command": command}))
    render(folder, tmp_path / "out")
    page = (tmp_path / "out/report.md").read_text()
    assert "**Failed, and missing below:**\n> * digits/broken: its worker process died" in page
    assert "**Not made in this run, and missing below:**\n> * digits/late" in page
    assert "dbn-bench run digits --add 'ed@5'\n" in page
    # What `--add` named stands out.
    results = load_results(folder)
    assert main_table(results).added == {("ED", "5")}
    assert styles(results)["ED"].colour == ADDED_COLOUR


def test_a_fitted_equivalent_that_says_nothing_has_no_column(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    frame = pd.read_csv(folder / "summary.csv")
    frame[["dee_raw_fit_low", "dee_raw_fit_high"]] = [0.0, INF]
    frame.to_csv(folder / "summary.csv", index=False)
    header = main_table(load_results(folder)).header
    assert "DEE (raw) fitted ↑" not in header
    assert "DEE (calibrated) fitted ↑" in header


REFERENCE = Path(__file__).resolve().parents[3] / "results/reference"


@pytest.mark.parametrize("suite", sorted(path.name for path in REFERENCE.iterdir()))
def test_every_committed_suite_has_a_main_table_and_a_summary_with_its_numbers(suite: str) -> None:
    results = load_results(REFERENCE / suite)
    rows = [row for block in main_table(results).blocks for row in block.rows]
    assert len(rows) == len(results.summary)
    name, score = results.task.headline, results.task.scores[results.task.headline]
    first = results.reference.iloc[0]
    assert f"its {score.title} is {first[f'{name}_mean'] * score.scale:.4g}" in summary(results)[0]
    assert len(captions(results)) >= 2
    assert results.statistics


def test_a_new_score_needs_no_new_rows_and_becomes_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write_results(tmp_path / "rows")
    monkeypatch.setattr(Classification, "scores", {**Classification.scores, "augrc": Score("AUGRC")})
    assert "AUGRC ↓" not in main_table(load_results(rows)).header
    summary = pd.read_csv(rows / "summary.csv")
    new = {"augrc_mean": 0.02, "augrc_low": 0.01, "augrc_high": 0.03, "augrc_mark": ""}
    summary.assign(**new).to_csv(rows / "summary.csv", index=False)
    assert "AUGRC ↓" in main_table(load_results(rows)).header
    summary.assign(augrc_mean=0.02).to_csv(rows / "summary.csv", index=False)
    with pytest.raises(ArtefactError, match="lacks the columns augrc_mark, augrc_low, augrc_high"):
        load_results(rows)
