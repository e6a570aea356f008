"""The pages of a report, rendered from a made-up folder of results, and what a reader may have done to that folder."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.report import read_results, render
from benchmarks.report.figures.figures import FIGURES as DRAWN
from benchmarks.report.figures.style import ADDED_COLOUR, styles
from benchmarks.report.page.captions import captions
from benchmarks.report.page.summary import summary
from benchmarks.report.tables.main import main_table
from dbn_core.errors import ArtefactError
from tests.benchmarks.report.made_up import METHODS, ODD, change_meta, write_results
from tests.support.sketches import explorable

REFERENCE = Path(__file__).resolve().parents[3] / "results/reference"
FIGURES = (
    *("dee_vs_flops", "pareto_flops", "pareto_training", "nll_vs_size", "acc_vs_size", "reliability"),
    *("training_cost", "risk_coverage"),
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with explorable():
        render(write_results(folder / "rows"), folder / "out")
    return folder


def test_writes_every_file_twice_with_the_same_bytes(report: Path, tmp_path: Path) -> None:
    with explorable():
        names = {path.relative_to(tmp_path).as_posix() for path in render(report / "rows", tmp_path)}
    assert names == {
        *("report.md", "report.html"),
        *(f"tables/{name}.{end}" for name in ("main", "uncertainty", "sizes", "comparisons") for end in ("csv", "tex")),
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


def test_markdown_shows_gaps_figures_and_the_footer(report: Path) -> None:
    page = (report / "out/report.md").read_text()
    for text in ("**Failed, and missing below:**", r"a\_b & c%", "torch 2.15.0", "Latency rel., batch 256"):
        assert text in page
    assert all(f"(figures/{name}.png)" in page for name in FIGURES)
    assert "0123456789ab" in page
    assert "0123456789abc" not in page
    assert "None" not in page
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", page.lower().replace("&lt;nan>", ""))
    assert "They speak of other pools." in page
    assert "Among the other methods a\\_b & c% (size 5) has the best AUGRC, 0.99 %" in page
    assert "by &lt;Student>." in page
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert {line.count("|") - line.count(r"\|") for line in rows} == {21, 14, 10, 5}


# ------------------------------------------------------------------------------------------------- what rows may hold


def test_controls_have_a_block_of_their_own(tmp_path: Path) -> None:
    controls = ["DBN (paper)", ODD]
    folder = change_meta(write_results(tmp_path / "rows"), controls=controls)
    results = read_results(folder)
    assert not set(controls) & set(styles(results))
    blocks = {block.title: {row[0].text for row in block.rows} for block in main_table(results).blocks}
    assert blocks["Controls"] == set(controls)
    assert blocks["Other methods"] == {"ED", "END²", "BN", "DBN (fixed)"}
    render(folder, tmp_path / "out")
    page = (tmp_path / "out/report.md").read_text()
    assert "Grey dots are the controls" in page
    assert page.count("Controls are left out") == 4


def test_a_run_of_controls_alone_is_about_them(tmp_path: Path) -> None:
    folder = write_results(tmp_path, [row for row in METHODS if row[2] in ("de", "ed")])
    results = read_results(change_meta(folder, controls=["ED"]))
    assert not results.summary["control"].any()
    assert set(styles(results)) == {"DE", "ED"}


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
    results = read_results(folder)
    assert all(DRAWN[name](results, styles(results)).axes for name in captions(results))


def test_what_was_not_reached_is_not_called_failed_and_commands_are_the_readers(tmp_path: Path) -> None:
    failures = [
        {"cell": "digits/late", "reason": "not made: left out of this run, or its time was up"},
        {"cell": "digits/broken", "reason": "its worker process died"},
    ]
    command = "dbn-bench run digits --add 'ed@5' --publish"
    folder = change_meta(write_results(tmp_path / "rows", METHODS[:10]), failures=failures, command=command)
    render(folder, tmp_path / "out")
    page = (tmp_path / "out/report.md").read_text()
    assert "**Failed, and missing below:**\n> * digits/broken: its worker process died" in page
    assert "**Not made in this run, and missing below:**\n> * digits/late" in page
    assert "dbn-bench run digits --add 'ed@5'\n" in page
    # What `--add` named stands out.
    results = read_results(folder)
    assert main_table(results).added == {("ED", "5")}
    assert styles(results)["ED"].colour == ADDED_COLOUR


def test_a_missing_column_or_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    pd.read_csv(folder / "summary.csv").drop(columns="dee_raw_low").to_csv(folder / "summary.csv", index=False)
    with pytest.raises(ArtefactError, match=r"summary\.csv lacks the column dee_raw_low; run `dbn-bench run"):
        read_results(folder)
    write_results(tmp_path)
    (folder / "reliability.csv").unlink()
    with pytest.raises(ArtefactError, match=r"reliability\.csv is missing; run `dbn-bench run"):
        read_results(folder)
    write_results(tmp_path)
    frame = pd.read_csv(folder / "rows.csv", dtype=str)
    frame.loc[0, "value"] = "fast"
    frame.to_csv(folder / "rows.csv", index=False)
    with pytest.raises(ArtefactError, match="value that is no number"):
        read_results(folder)
    (folder / "meta.json").write_text("{")
    with pytest.raises(ArtefactError, match=r"meta\.json is not readable JSON"):
        read_results(folder)


def test_labels_shared_by_two_methods_give_way_to_the_spec(tmp_path: Path) -> None:
    twin = ("ED", "ed[temperature=2]", "ed", 3, 0.12, 0.11, 0.96, 1.0)
    results = read_results(write_results(tmp_path, [*METHODS, twin]))
    assert {"ed", "ed[temperature=2]"} <= set(results.summary["label"])
    assert "ED" not in set(results.rows["label"])


# --------------------------------------------------------------------------------------------------------- the summary


def test_summary_names_the_best_method_with_its_worth_and_cost(report: Path) -> None:
    text = " ".join(summary(read_results(report / "rows")))
    assert f"{ODD} (size 5) has the best NLL, 0.066" in text
    assert "> 8" in text
    assert "Its NLL is significantly lower than that of DE-1" in text


def test_summary_says_when_nothing_beats_one_network(tmp_path: Path) -> None:
    weak = [row for row in METHODS if row[2] in ("de", "end2")]
    text = " ".join(summary(read_results(write_results(tmp_path, weak))))
    assert "No method is better than a single network on raw NLL or temperature-scaled NLL." in text
    assert "END² (size 3)" in text


def test_summary_says_when_the_reference_does_not_rank_sizes(tmp_path: Path) -> None:
    rising = [(*row[:4], 0.01 * row[3], *row[5:]) if row[2] == "de" else row for row in METHODS]
    folder = write_results(tmp_path, rising)
    doubt = "DE-1: validation does not determine the temperature in 2 of 3 repetitions: the NLL is flat."
    text = summary(read_results(change_meta(folder, statistics=[doubt, doubt.replace("DE-1", "ED of size 3")])))
    assert text[1] == "The NLL of the reference does not fall from size 1 to 8, so equivalents on it mean nothing."
    assert "determine the temperature of DE-1: calibrated" in " ".join(text)
    assert "equivalent" not in next(line for line in text if line.startswith("Among the other methods"))
    assert not any("mean nothing" in line for line in summary(read_results(write_results(tmp_path / "falling"))))


def test_summary_says_when_repetitions_are_too_few(tmp_path: Path) -> None:
    frame = pd.read_csv(write_results(tmp_path) / "summary.csv")
    assert "too few" not in " ".join(summary(read_results(tmp_path)))
    for kind in ("raw", "cal"):
        frame.loc[frame["family"] != "de", [f"dee_{kind}_low", f"dee_{kind}_high"]] = [-math.inf, math.inf]
    frame.to_csv(tmp_path / "summary.csv", index=False)
    text = " ".join(summary(read_results(tmp_path)))
    count = 2 * (frame["family"] != "de").sum()
    assert f"{count} of the {count} intervals of equivalents are open at both ends: 3 repetitions are too few" in text


def test_summary_says_which_methods_are_tied(tmp_path: Path) -> None:
    text = " ".join(summary(read_results(write_results(tmp_path, METHODS[:-1]))))
    assert "DBN (fixed) (size 5) has the best NLL, 0.0825, at 1.33× the FLOPs and 1.44× the batch-1 latency" in text
    assert "Its difference in NLL to DBN (paper) (size 5) is not significant (paired t test, corrected" in text


@pytest.mark.parametrize("suite", sorted(path.name for path in REFERENCE.iterdir()))
def test_every_committed_suite_has_a_main_table_and_a_summary_with_its_numbers(suite: str) -> None:
    results = read_results(REFERENCE / suite)
    rows = [row for block in main_table(results).blocks for row in block.rows]
    assert len(rows) == len(results.summary)
    name, score = results.task.headline, results.task.scores[results.task.headline]
    first = results.reference.iloc[0]
    assert f"its {score.title} is {first[f'{name}_mean'] * score.scale:.4g}" in summary(results)[0]
    assert len(captions(results)) >= 2
    assert results.statistics
