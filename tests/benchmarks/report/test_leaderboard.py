"""The front page: what the committed files give, in order, and nothing that does not belong together."""

from __future__ import annotations

import csv
import math
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.cli import application
from benchmarks.entries import make_entry
from benchmarks.report.leaderboard import BEST, Board, load_boards, render_leaderboard
from benchmarks.results.entries import write_entry
from dbn_core.errors import SpecError

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "reports" / "README.md"


@pytest.fixture(scope="module")
def boards() -> dict[str, Board]:
    return {board.suite: board for board in load_boards(ROOT / "results")}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """One suite, to which a test adds entries."""
    shutil.copytree(ROOT / "results/reference/cifar10-cpu", tmp_path / "results/reference/cifar10-cpu")
    shutil.copytree(ROOT / "results/published", tmp_path / "results/published")
    return tmp_path / "results"


def entry(size: int, dee: float, **fields: Any) -> Any:
    scores = {"acc": 0.9, "nll": 0.3, "cnll": 0.3, "dee_raw": dee, "dee_cal": dee}
    about = {"suite": "cifar10-cpu", "name": f"theirs-{size}", "method": "Theirs | x", "paper": "arXiv 1234.56789"}
    about |= {"code": "https://example.org", "licence": "MIT", "who": "me"}
    made = {"repetitions": 2, "predictions": "0" * 64, "scores": {k: {"value": v} for k, v in scores.items()}}
    return make_entry({**about, "size": size, **made, **fields})


def test_the_committed_page_is_what_the_command_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_leaderboard(ROOT / "results"), (
        "run `dbn-bench leaderboard --publish`"
    )


def test_every_link_of_the_page_leads_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    links = re.findall(r"\]\(((?!https?:|#)[^)#]+)", text)
    assert {page.relative_to(PAGE.parent).as_posix() for page in PAGE.parent.glob("*/report.md")} <= set(links)
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_rows_are_those_of_the_summary_from_the_best(boards: dict[str, Board]) -> None:
    board = boards["cifar10-cpu"]
    with (ROOT / "results/reference/cifar10-cpu/summary.csv").open(newline="") as file:
        known = {(row["label"], int(row["size"])): row for row in csv.DictReader(file)}
    own = [row for row in board.rows if not row.entry]
    assert {(row.label, row.size) for row in own} == set(known)
    for row in own:
        there = known[row.label, row.size]
        assert row.nll == float(there["nll_mean"])
        assert row.dee["dee_cal"][0] == float(there["dee_cal"])
        assert (row.status == "reference") == (there["family"] == "de")
    for each in boards.values():
        worth = [row.dee["dee_cal"][0] for row in each.rows if not math.isnan(row.dee["dee_cal"][0])]
        assert worth == sorted(worth, reverse=True)
        methods = [row.label for row in each.shown if row.status != "reference" and not row.entry]
        assert len(methods) <= BEST
        assert max(Counter(methods).values()) <= 2  # of a method's sizes the best and the cheapest
        assert {1} < {row.size for row in each.shown if row.status == "reference"}
    assert "cifar10-shift" not in boards  # its clean rows are another suite's
    assert "iris-forest" not in boards


def test_entries_are_ranked_and_stated_figures_stand_apart(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = results / "entries"
    write_entry(root, entry(4, 3.5, cost={"macs": 82476160, "train_passes": 2688000}), b"p")
    write_entry(root, entry(5, 99.0, status="disputed", reason="trained on test"), b"p")
    stated = {"status": "stated", "predictions": "", "repetitions": None, "on": "CIFAR-10, ResNet-32"}
    write_entry(root, entry(6, 77.0, **stated, cost={"macs": 7e7}, note="Of table 2.", paper="doi:10.1000/x.1"))
    (board,) = load_boards(results)
    (mine,) = [row for row in board.rows if row.entry]
    place = board.shown.index(mine)
    above, below = (float(board.shown[place + step].cells[3].split()[0]) for step in (-1, 1))
    assert above >= 3.5 >= below
    assert mine.cells[2:9] == ["2", "3.50", "3.50", "90.0", "0.300", "2.00×\\*", "1.0\\*"]
    assert "[arXiv 1234.56789](https://arxiv.org/abs/1234.56789)" in mine.sources
    page = render_leaderboard(results)
    ranked, _, apart = page.partition("## Stated by papers")
    assert "77.00" not in ranked
    assert re.search(r"^\| Theirs \\\| x \| 6 \| CIFAR-10, ResNet-32 \| 77.00 .* 140,000,000\\\* \|", apart, re.M)
    assert "* Theirs \\| x, size 6: Of table 2." in apart
    assert "[DOI 10.1000/x.1](https://doi.org/10.1000/x.1)" in apart
    assert "Disputed: Theirs \\| x, size 5: trained on test" in ranked
    assert "99.00" not in page
    monkeypatch.chdir(results.parent)
    said = CliRunner().invoke(application("leaderboard"), ["leaderboard", "cifar10-cpu"])
    assert said.output.splitlines()[-1].startswith("Not ranked: 1 stated and 1 disputed, in results/entries")


def test_an_entry_without_calibration_comes_last_and_is_shown(results: Path) -> None:
    scores = {"acc": {"value": 0.9}, "nll": {"value": 0.28}, "dee_raw": {"value": 6.0}}
    write_entry(results / "entries", entry(4, 1.0, scores=scores), b"p")
    (board,) = load_boards(results)
    assert board.rows[-1].entry
    assert board.shown[-1].cells[3:5] == ["–", "6.00"]


def test_an_entry_of_a_suite_without_a_board_is_an_error(results: Path) -> None:
    write_entry(results / "entries", entry(4, 1.0, suite="digits"), b"p")
    with pytest.raises(SpecError, match="'digits', which has no board"):
        load_boards(results)


def test_the_command_prints_the_board_of_a_suite(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results.parent)
    said = CliRunner().invoke(application("leaderboard"), ["leaderboard", "cifar10-cpu"])
    assert said.exit_code == 0, said.output
    assert re.search(r"^ED \(48 epochs\) +8 +3 +2\.01 \[1\.7, 2\.5\] .* reproduced$", said.output, re.M)
    wrong = CliRunner().invoke(application("leaderboard"), ["leaderboard", "cifar10"])
    assert "did you mean 'cifar10-cpu'" in str(wrong.exception)
    assert not Path("reports").exists()


def test_filters_search_all_rows_and_keep_stated_figures_apart(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results.parent)

    def said(*words: str) -> str:
        done = CliRunner().invoke(application("leaderboard"), ["leaderboard", *words])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    (board,) = load_boards(results)
    cheap = said("--max-flops", "1.2", "--status", "reproduced")
    wanted = {row.label for row in board.rows if row.flops <= 1.2 and row.status == "reproduced"}
    assert wanted - {row.label for row in board.shown}  # more than the page has
    assert all(re.search(rf"^{re.escape(label)} ", cheap, re.M) for label in wanted)
    assert not re.search(r"^DE ", cheap, re.M)
    bridges = said("cifar10-cpu", "--find", "2404.15814", "--find", "direct")
    assert re.search(r"^Direct", bridges, re.M)
    assert not re.search(r"^(ED|DE|DBN)", bridges, re.M)
    apart = said("--status", "stated", "--find", "dbn")
    assert "not comparable with the rows of suites" in apart
    assert "cifar10-cpu:" not in apart
    assert said("--find", "nothing of the kind") == "No row matches.\n"
    refused = CliRunner().invoke(application("leaderboard"), ["leaderboard", "--publish", "--max-flops", "2"])
    assert "drop the suite and the filters" in str(refused.exception)
    assert not Path("reports").exists()


def test_every_row_links_its_report_code_and_paper(boards: dict[str, Board]) -> None:
    for name, board in boards.items():
        for row in board.rows:
            assert f"[report]({name}/report.md)" in row.sources
            assert row.entry or re.search(r"\[code\]\(\.\./baselines/\S+\), \S", row.sources), (name, row.label)


def test_no_time_is_on_the_page() -> None:
    heads = re.findall(r"^\| Method .*$", PAGE.read_text(encoding="utf-8"), re.M)
    assert heads
    assert not re.search(r"latency|seconds|\bms\b", " ".join(heads), re.I)
