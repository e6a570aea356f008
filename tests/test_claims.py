"""The papers' claims: what decides them, on made-up rows and on the committed ones."""

from __future__ import annotations

import csv
import math
import re
import shutil
import subprocess
import sys
from contextlib import chdir
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter
from scipy import stats
from typer.testing import CliRunner

from benchmarks.claims import words
from benchmarks.claims.decide import BOOTSTRAP, CROSSED, EXACT, PAIRED_BOOTSTRAP, PAIRED_CROSSED, PAIRED_T, decide
from benchmarks.claims.model import Claim, Claims, Test, load_claims
from benchmarks.claims.render import SHOWN, load_suites, reference_folders, render_claims, to_csv, verdicts
from benchmarks.cli import application
from benchmarks.published import MARKS
from benchmarks.report.load import Results
from benchmarks.report.tables import escape_md
from benchmarks.results.pairing import CellResult, Pairing, method_name
from benchmarks.results.rows import _contrasted
from benchmarks.statistics import independent
from dbn_core.errors import ArtefactError, SpecError
from dbn_core.task import Scores
from dbn_core.tasks.classification import Classification

ROOT = Path(__file__).resolve().parent.parent
NAN, INF = float("nan"), float("inf")
TEST = TypeAdapter(Test)

# --------------------------------------------------------------------------------------------------- made-up suites


def claim(*tests: dict, subjects: tuple[str, ...] = ("A",)) -> Claim:
    return Claim(
        id="a-claim",
        name="a",
        paper="p",
        sentence="A is good.",
        data="nowhere",
        subjects=subjects,
        tests=tests,
        why="why not",
    )


def results(
    values: dict[tuple[str, int], dict[str, list[float]]] | None = None,
    summary: dict[tuple[str, int], dict[str, float]] | None = None,
    comparisons: list[tuple] = (),
) -> Results:
    """A suite: scores by repetition, columns of the summary, and rows of the comparisons."""
    values, summary = values or {}, summary or {}
    cells = dict.fromkeys([*values, *summary])
    rows = [
        {"label": label, "size": size, "repetition": r, "metric": metric, "value": value}
        for (label, size), scores in values.items()
        for metric, by_repetition in scores.items()
        for r, value in enumerate(by_repetition)
    ]
    columns = ("dee_raw", "dee_raw_low", "dee_raw_high", "dee_cal", "dee_cal_low", "dee_cal_high", "macs_rel")
    known = [
        {"label": label, "size": size, "family": "de" if label == "DE" else "x", "n": 3}
        | {column: summary.get((label, size), {}).get(column, NAN) for column in columns}
        for label, size in cells
    ]
    return Results(
        pd.DataFrame(known, columns=["label", "size", "family", "n", *columns]),
        pd.DataFrame(rows, columns=["label", "size", "repetition", "metric", "value"]),
        pd.DataFrame(
            comparisons, columns=["label", "size", "reference", "metric", "difference", "low", "high", "p_value"]
        ),
        pd.DataFrame(),
        {"suite": "made-up", "dataset": {"test": 100}},
    )


def dee(value: float, low: float, high: float) -> Results:
    return results(summary={("A", 3): {"dee_raw": value, "dee_raw_low": low, "dee_raw_high": high}})


def threshold(side: str, metric: str = "dee_raw", bound: float = 2.0) -> Claim:
    return claim({"kind": "threshold", "metric": metric, "of": {"size": 3}, "side": side, "bound": bound})


def against(label: str, size: int, metric: str = "nll", **rest: object) -> dict:
    kind = "equivalence" if "within" in rest else "difference"
    return {"kind": kind, "metric": metric, "of": {"size": 3}, "to": {"label": label, "size": size}, **rest}


def with_difference(difference: float, low: float, high: float, metric: str = "nll") -> Results:
    """A against DE-3 with a difference in the comparisons."""
    scores = {metric: [0.5, 0.5, 0.5]}
    row = ("A", 3, "DE-3", metric, difference, low, high, 0.5)
    return results({("A", 3): scores, ("DE", 3): scores}, comparisons=[row])


# --------------------------------------------------------------------------------------------------------- decisions


@pytest.mark.parametrize(
    ("value", "low", "high", "above", "below"),
    [
        (2.5, 2.1, 3.0, "holds", "does not"),
        (1.5, 1.0, 1.9, "does not", "holds"),
        (2.1, 1.8, 2.4, "undecided", "undecided"),
        (-INF, -INF, -INF, "does not", "holds"),  # censored: worse than one network
        (INF, INF, INF, "holds", "does not"),  # censored: better than the largest ensemble
        (1.7, -INF, INF, "undecided", "undecided"),
        (1.2, -INF, 1.9, "does not", "holds"),
        (2.4, 2.2, INF, "holds", "does not"),
        (2.5, NAN, NAN, "undecided", "undecided"),
    ],
)
def test_threshold(value: float, low: float, high: float, above: str, below: str) -> None:
    for side, expected in (("above", above), ("below", below)):
        [verdict] = decide(threshold(side), dee(value, low, high))
        assert verdict.verdict == expected
        assert verdict.deciding.estimate.n == 3
        assert verdict.deciding.estimate.basis == BOOTSTRAP


def test_newer_rows_say_how_their_intervals_were_made() -> None:
    for rows, tested, basis in (
        (dee(2.5, 2.1, 3.0), threshold("above"), CROSSED),
        (with_difference(-0.1, -0.2, -0.05), claim(against("DE", 3, side="below")), PAIRED_CROSSED),
    ):
        rows.meta["statistics"] = ["Student's t."]
        [verdict] = decide(tested, rows)
        assert (verdict.verdict, verdict.deciding.estimate.basis) == ("holds", basis)


def test_a_censored_equivalent_is_written_as_one() -> None:
    [verdict] = decide(threshold("above"), dee(-INF, -INF, -INF))
    assert verdict.sentence == "The DEE (raw) of A of size 3 is < 1: the interval lies wholly below 2.00."
    [verdict] = decide(threshold("above"), dee(2.5, -INF, INF))
    assert "2.50 [< 1, > M]: the interval reaches across 2.00" in verdict.sentence
    [verdict] = decide(threshold("above"), dee(2.5, NAN, NAN))
    assert verdict.sentence.endswith("is 2.50: one repetition gives no interval.")


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (-0.04, -0.02, "does not", "holds"),
        (-0.005, 0.01, "holds", "does not"),  # a margin of 0.01 below zero
        (-0.02, 0.01, "undecided", "undecided"),
        (-0.01, 0.01, "undecided", "does not"),  # an end on the bound is not on the claimed side
    ],
)
def test_difference_with_a_margin(low: float, high: float, above: str, below: str) -> None:
    rows = with_difference((low + high) / 2, low, high)
    for side, expected in (("above", above), ("below", below)):
        [verdict] = decide(claim(against("DE", 3, side=side, bound=-0.01)), rows)
        assert verdict.verdict == expected
        assert verdict.deciding.estimate.basis == PAIRED_BOOTSTRAP


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.004, 0.006, "holds"),
        (0.02, 0.03, "does not"),
        (-0.03, -0.02, "does not"),
        (0.001, 0.02, "undecided"),
        (-0.05, 0.05, "undecided"),
    ],
)
def test_equivalence(low: float, high: float, expected: str) -> None:
    [verdict] = decide(claim(against("DE", 3, within=0.01)), with_difference((low + high) / 2, low, high))
    assert verdict.verdict == expected


def test_a_pair_without_a_comparison_is_decided_by_repetition() -> None:
    rows = results({("A", 3): {"nll": [0.20, 0.22, 0.24]}, ("B", 3): {"nll": [0.30, 0.325, 0.35]}})
    [verdict] = decide(claim(against("B", 3, side="below")), rows)
    expected = independent(np.array([-0.10, -0.105, -0.11]))
    estimate = verdict.deciding.estimate
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert (verdict.verdict, estimate.n, estimate.basis) == ("holds", 3, PAIRED_T)


def test_only_shared_repetitions_are_paired() -> None:
    rows = results({("A", 3): {"nll": [0.20, 0.22, 0.9]}, ("B", 3): {"nll": [0.30, 0.33]}})
    [verdict] = decide(claim(against("B", 3, side="below")), rows)
    assert verdict.deciding.estimate.n == 2
    assert verdict.deciding.estimate.value == pytest.approx(-0.105)
    rows = results({("A", 3): {"nll": [0.20]}, ("B", 3): {"nll": [0.30]}})
    [verdict] = decide(claim(against("B", 3, side="below")), rows)
    assert verdict.verdict == "undecided"
    assert "one repetition gives no interval" in verdict.sentence


def test_a_comparison_of_the_reversed_pair_is_turned() -> None:
    scores = {"nll": [0.5, 0.5, 0.5]}
    row = ("B", 5, "A of size 3", "nll", 0.02, 0.01, 0.05, 0.01)
    [verdict] = decide(claim(against("B", 5, side="below")), results({("A", 3): scores, ("B", 5): scores}, {}, [row]))
    estimate = verdict.deciding.estimate
    assert (estimate.value, estimate.low, estimate.high) == (-0.02, -0.05, -0.01)
    assert verdict.verdict == "holds"


def test_costs_are_compared_without_interval() -> None:
    rows = results(summary={("A", 3): {"macs_rel": 1.158}, ("B", 3): {"macs_rel": 1.41}})
    [verdict] = decide(claim(against("B", 3, metric="macs_rel", side="below")), rows)
    assert (verdict.verdict, verdict.deciding.estimate.basis) == ("holds", EXACT)
    assert verdict.sentence == "The relative FLOPs of A of size 3 minus B of size 3 is −0.252×, below 0."
    [verdict] = decide(threshold("below", "macs_rel", 1.1), rows)
    assert (verdict.verdict, verdict.sentence[-19:]) == ("does not", "1.158×, not below 1.100×."[-19:])
    [verdict] = decide(claim(against("B", 3, metric="macs_rel", within=0.3)), rows)
    assert verdict.verdict == "holds"


def test_all_tests_of_a_claim_must_hold() -> None:
    rows = results(
        {("A", 3): {"nll": [0.2, 0.2, 0.2]}, ("B", 3): {"nll": [0.3, 0.31, 0.3]}},
        {("A", 3): {"macs_rel": 1.2, "dee_raw": 2.1, "dee_raw_low": 1.5, "dee_raw_high": 2.6}},
    )
    good = against("B", 3, side="below")
    cheap = {"kind": "threshold", "metric": "macs_rel", "of": {"size": 3}, "side": "below", "bound": 1.3}
    open_ = {"kind": "threshold", "metric": "dee_raw", "of": {"size": 3}, "side": "above", "bound": 2}
    dear = cheap | {"bound": 1.1}
    gone = against("C", 3, side="below")
    for tests, expected, deciding in (
        ([good, cheap], "holds", 0),
        ([good, open_], "undecided", 1),
        ([good, open_, dear], "does not", 2),
        ([dear, gone], "undecided", 1),  # without all rows nothing is decided
        ([good, gone], "undecided", 1),
    ):
        [verdict] = decide(claim(*tests), rows)
        assert verdict.verdict == expected
        assert verdict.deciding is verdict.outcomes[deciding]
        assert verdict.deciding.reason in verdict.sentence


def test_missing_rows_are_named_and_decide_nothing() -> None:
    rows = results({("A", 3): {"nll": [0.2, 0.2]}})
    [verdict] = decide(claim(against("DE", 1, side="above")), rows)
    assert verdict.verdict == "undecided"
    assert verdict.sentence == "No rows for 'DE' of size 1 in suite made-up."
    assert not verdict.measured
    [verdict] = decide(claim(against("C", 2, side="above"), subjects=("B",)), rows)
    assert verdict.sentence == "No rows for 'B' of size 3 and 'C' of size 2 in suite made-up."
    [verdict] = decide(threshold("above"), rows)  # the method is there, without an ensemble to be equivalent to
    assert verdict.sentence == "No DEE (raw) of A of size 3 in suite made-up."
    [verdict] = decide(threshold("below", "macs_rel"), rows)
    assert verdict.sentence == "No counted FLOPs for A of size 3 in suite made-up."
    rows = results({("A", 3): {"nll": [0.2]}, ("C", 2): {"acc": [0.9]}})
    [verdict] = decide(claim(against("C", 2, side="above")), rows)
    assert verdict.sentence == "No repetition with the NLL of both A of size 3 and C of size 2 in suite made-up."


def test_each_subject_has_a_verdict_of_its_own() -> None:
    rows = results({("A", 3): {"nll": [0.2, 0.2]}, ("B", 3): {"nll": [0.4, 0.4]}, ("DE", 1): {"nll": [0.3, 0.301]}})
    found = decide(claim(against("DE", 1, side="below"), subjects=("A", "B", "C")), rows)
    assert [(v.subject, v.verdict) for v in found] == [("A", "holds"), ("B", "does not"), ("C", "undecided")]


def test_the_temperature_scaled_effect_stands_beside_the_raw_one() -> None:
    values = {("A", 3): {"nll": [0.2, 0.2], "cnll": [0.1, 0.2]}, ("DE", 1): {"nll": [0.3, 0.3], "cnll": [0.1, 0.3]}}
    [verdict] = decide(claim(against("DE", 1, side="below")), results(values))
    assert verdict.deciding.twin.startswith("after temperature scaling −0.0500 [")
    [verdict] = decide(claim(against("DE", 1, metric="cnll", side="below")), results(values))
    assert verdict.deciding.twin == "raw −0.1000"
    [verdict] = decide(claim(against("DE", 1, metric="acc", side="above")), results(values))
    assert verdict.deciding.twin == ""


def test_a_subject_may_have_a_size_of_its_own() -> None:
    rows = results(
        summary={
            ("ED (long)", 5): {"macs_rel": 1.0, "dee_raw": 7.0, "dee_raw_low": 6.5, "dee_raw_high": 7.5},
            ("ED (long)", 3): {"macs_rel": 1.0, "dee_raw": 5.0, "dee_raw_low": 4.5, "dee_raw_high": 5.5},
        }
    )
    six = {"kind": "threshold", "metric": "dee_raw", "of": {}, "side": "above", "bound": 6.0}
    found = decide(claim(six, subjects=("ED (long)@5", "ED (long)@3")), rows)
    assert [(v.subject, v.verdict) for v in found] == [("ED (long)@5", "holds"), ("ED (long)@3", "does not")]
    assert found[0].sentence.startswith("The DEE (raw) of ED (long) of size 5 is 7.00 [6.50, 7.50]:")
    assert words.quantity(found[0].deciding.test, "the method") == "DEE (raw) of the method"
    with pytest.raises(ValueError, match="a test without a size needs subjects that have one"):
        claim(six, subjects=("ED (long)@5", "ED"))


@pytest.mark.parametrize(
    ("gap", "p", "verdict", "says"),
    [
        ((-0.03, -0.05, -0.01), 0.004, "holds", "lies wholly below 0 with p < 0.01"),
        ((-0.03, -0.05, -0.01), 0.04, "undecided", "lies wholly below 0, but p is not below 0.01"),
        ((-0.03, -0.07, 0.01), 0.2, "undecided", "reaches across 0"),
        ((0.03, 0.01, 0.05), 0.004, "does not", "lies wholly above 0"),
    ],
)
def test_a_difference_may_have_to_be_significant_at_a_level(gap: tuple, p: float, verdict: str, says: str) -> None:
    rows = with_difference(*gap)
    rows.comparisons["p_holm"] = p  # the corrected one counts, not the 0.5 beside it
    [found] = decide(claim(against("DE", 3, side="below", p_below=0.01)), rows)
    assert found.verdict == verdict
    assert found.sentence.endswith(f"the interval {says}.")
    with pytest.raises(ValueError, match="'p_below' is about a difference of zero"):
        claim(against("DE", 3, side="below", p_below=0.01, bound=-0.1))


def test_without_a_comparison_the_p_value_is_that_of_the_repetitions() -> None:
    scores = {("A", 3): {"nll": [0.20, 0.22, 0.24]}, ("B", 3): {"nll": [0.30, 0.325, 0.35]}}
    p = stats.ttest_rel(*(s["nll"] for s in scores.values())).pvalue
    for level, verdict in ((1.01 * p, "holds"), (0.99 * p, "undecided")):
        [found] = decide(claim(against("B", 3, side="below", p_below=level)), results(scores))
        assert (found.deciding.estimate.p_value, found.verdict) == (pytest.approx(p), verdict)


def test_a_claim_of_ours_is_without_data_until_its_suite_has_rows(tmp_path: Path) -> None:
    render_claims([ROOT / "results/reference/digits"], tmp_path)
    page = (tmp_path / "claims.md").read_text(encoding="utf-8")
    own = page[page.index("## This project") :]
    ours = load_claims().of("own")
    assert {entry.suite for entry in ours} == {"cifar10-cpu"}
    assert own.count("* **cifar10-cpu: undecided.** No data: there are no rows of this suite yet.") == len(ours)
    assert "Published: " not in own
    assert "arXiv" not in own
    assert "**digits, ED@5: " in own  # beside it, what another suite says


# ----------------------------------------------------------------------------------------------------- the claims file


def test_the_built_in_claims_cover_the_papers() -> None:
    claims = load_claims()
    assert set(claims.papers) == {"dbn", "bn", "b-dense", "score-ensembles", "own"}
    assert all(claims.of(paper) for paper in claims.papers)
    assert {test.kind for c in claims.claims for test in c.tests} == {"threshold", "difference", "equivalence"}
    assert {c.mark for c in claims.claims if c.mark} <= set(MARKS)


def test_every_metric_of_the_vocabulary_is_used_and_has_words() -> None:
    used = {(test.kind, test.metric) for c in load_claims().claims for test in c.tests}
    offered = set()
    for kind, schema in TEST.json_schema()["$defs"].items():
        if "metric" in schema.get("properties", {}):
            offered |= {(kind.lower(), metric) for metric in schema["properties"]["metric"]["enum"]}
    assert offered == used
    assert {metric for _, metric in offered} == set(words.METRICS)


BUILT_IN = (ROOT / "benchmarks" / "claims" / "claims.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "threshold"', 'kind = "ordering"', r"claim 'dbn-.*: tests\.1: Input tag 'ordering'"),
        ('metric = "dee_raw"', 'metric = "dee"', r"claim 'dbn-one-bridge-dee': tests\.0\.threshold\.metric: Input"),
        ('side = "above"', 'side = "over"', r"claim 'dbn-accuracy-of-three': tests\.0\.difference\.side: Input"),
        ("within = 0.001", "within = 0", r"claim 'b-dense-no-cost': tests\.0\.equivalence\.within: Input"),
        ('why = "Any', 'wy = "Any', r"claim '.*': unknown key 'wy'"),
        ('mark = "NB"', 'mark = "XY"', r"claim '.*': mark: unknown mark of provenance"),
        ('mark = "NB"\n', "", r"claim 'dbn-accuracy-of-three': 'published' and 'mark' go together"),
        (
            'paper = "bn"',
            'paper = "bb"',
            r"claim 'bn-one-bridge-helps' belongs to the unknown paper 'bb' \(known: b-dense, bn",
        ),
        ('id = "dbn-two-bridges-dee"', 'id = "dbn-one-bridge-dee"', "two claims have the id 'dbn-one-bridge-dee'"),
        ('id = "dbn-two-bridges-dee"\n', "", r"claim 'number 3': the key 'id' is missing"),
        ("[papers.dbn]", "[paper.dbn]", r"'claims\.toml': unknown key 'paper'"),
        ("[papers.dbn]", "[papers.dbn", "is not valid TOML"),
    ],
)
def test_a_malformed_file_is_refused_in_words(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in BUILT_IN
    path = tmp_path / "claims.toml"
    path.write_text(BUILT_IN.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SpecError, match=message) as caught:
        load_claims(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="does not exist: check the path"):
        load_claims(tmp_path / "none.toml")


def test_a_subject_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a subject is named twice"):
        claim(against("DE", 1, side="above"), subjects=("A", "A"))


# ------------------------------------------------------------------------------------------------- contrasts of a run


def test_a_run_compares_the_pairs_that_claims_need() -> None:
    contrasts = list(load_claims().contrasts())
    assert len(set(contrasts)) == len(contrasts)
    assert (("DBN (fixed)", 5), ("DBN (fixed)", 3)) in contrasts
    assert (("DBN (paper)", 3), ("BN (medium)", 3)) in contrasts

    rng = np.random.default_rng(0)
    cells = {("x", 3): "DBN (fixed)", ("x", 5): "DBN (fixed)", ("b", 3): "BN (medium)", ("de", 3): "DE"}
    groups, stacked = {}, {}
    for key, label in cells.items():
        stacked[key] = {score: rng.normal(size=(3, 40)) for score in ("nll", "cnll", "acc")}
        method = SimpleNamespace(name=key[0], yardstick=key[0] == "de")
        groups[key] = [
            CellResult(
                SimpleNamespace(
                    spec=key[0],
                    label=label,
                    size=key[1],
                    method=method,
                    repetition=repetition,
                    is_reference=key[0] == "de",
                ),
                Scores(examples={score: values[repetition] for score, values in stacked[key].items()}),
            )
            for repetition in range(3)
        ]
    rows = pd.DataFrame(_contrasted(Classification(), groups, Pairing(groups), contrasts))
    pairs = set(zip(rows["label"], rows["size"], rows["reference"], strict=True))
    assert pairs == {
        ("DBN (fixed)", 5, "DBN (fixed) of size 3"),
        ("DBN (fixed)", 3, "BN (medium) of size 3"),
    }  # against DE-3 it is compared anyhow
    gap = rows[(rows["size"] == 5) & (rows["metric"] == "nll")].iloc[0]
    assert gap["difference"] == pytest.approx((stacked["x", 5]["nll"] - stacked["x", 3]["nll"]).mean())
    assert gap["low"] < gap["difference"] < gap["high"]


def test_names_of_methods() -> None:
    assert method_name("DE", 3) == "DE-3"
    assert method_name("DBN (fixed)", 3) == "DBN (fixed) of size 3"


# -------------------------------------------------------------------------------------------- the page and its sources


@cache
def committed() -> tuple[Claims, list, list]:
    """The claims, the suites whose rows are committed, and the verdicts."""
    claims, suites = load_claims(), load_suites(reference_folders(ROOT / "results" / "reference"))
    return claims, suites, verdicts(claims, suites)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the committed rows, made anew."""
    folder = tmp_path_factory.mktemp("claims")
    with chdir(ROOT):
        render_claims(reference_folders(), folder)
    return folder


def test_every_committed_verdict_is_what_the_committed_rows_give() -> None:
    claims, suites, found = committed()
    text = (ROOT / "reports" / "claims" / "claims.csv").read_text(encoding="utf-8")
    assert text == to_csv(claims, suites, found), "run `dbn-bench claims` to write it again"


def test_every_suite_has_a_verdict_on_every_claim() -> None:
    claims, suites, _ = committed()
    rows = list(csv.DictReader((ROOT / "reports" / "claims" / "claims.csv").open(encoding="utf-8", newline="")))
    expected = [(c.id, s.name, subject) for c in claims.claims for s in suites for subject in c.subjects]
    assert [(row["claim"], row["suite"], row["subject"]) for row in rows] == expected
    for row in rows:
        assert row["sentence"].endswith(".")
        if row["low"]:
            low, value, high = (float(row[key]) for key in ("low", "effect", "high"))
            assert low <= value <= high


def test_the_committed_page_is_what_the_rows_give(page: Path) -> None:
    for name in ("claims.md", "claims.csv"):  # the page itself also changes with the reports' style sheet
        committed_text = (ROOT / "reports" / "claims" / name).read_text(encoding="utf-8")
        assert (page / name).read_text(encoding="utf-8") == committed_text
    html = (page / "index.html").read_text(encoding="utf-8")
    for entry in load_claims().claims:
        assert f'id="{entry.id}"' in html
    assert set(re.findall(r'class="word ([a-z-]+)"', html)) == {"holds", "does-not", "undecided"}
    assert "nan" not in re.sub(r"<style>.*</style>", "", html, flags=re.DOTALL).split()
    headings = [html.index(f"<h2>{paper.name}</h2>") for paper in load_claims().papers.values()]
    assert all(a < b for a, b in pairwise(headings))


def overview_of_page(html: str) -> str:
    return html[html.index('<div class="scroll overview"') : html.index("<p>No verdict here")]


def test_the_overview_has_a_mark_for_every_verdict_and_leads_to_its_paragraph(page: Path) -> None:
    claims, suites, found = committed()
    html = (page / "index.html").read_text(encoding="utf-8")
    words_ = {"✓": "holds", "✗": "does not hold", "?": "undecided", "–": "no data"}
    expected = []
    of = {entry.id: key for key in claims.papers for entry in claims.of(key)}
    columns = {(of[v.claim], v.suite) for v in found if v.measured}
    for claim, suite in product(claims.claims, suites):
        if (of[claim.id], suite.name) not in columns:
            continue
        measured = [v for v in found if (v.claim, v.suite) == (claim.id, suite.name) and v.measured]
        titles = [f"{v.subject} on {v.suite}: {SHOWN[v.verdict]}" for v in measured]
        expected += [(claim.id, title) for title in titles or [f"none of its methods on {suite.name}: no data"]]
    marks = re.findall(
        r'<a class="mark ([a-z-]+)" href="#([a-z0-9-]+)" title="([^"]+)" aria-label="\3">(.)</a>',
        overview_of_page(html),
    )
    assert [(claim, title) for _, claim, title, _ in marks] == expected
    for css, claim, title, sign in marks:
        assert title.endswith(f": {words_[sign]}")
        assert css == words_[sign].removesuffix(" hold").replace(" ", "-")
        assert html.count(f'id="{claim}"') == 1
    for word, kind in (("holds", "✅"), ("does not hold", "❌"), ("undecided", "❔"), ("no data", "➖")):
        text = (page / "claims.md").read_text(encoding="utf-8")
        shown = re.findall(rf'\[{kind}\]\(#([a-z0-9-]+) "([^"]+)"\)', text)
        assert [(claim, escape_md(title)) for claim, title in expected if title.endswith(f": {word}")] == shown
        assert all(text.count(f'<a id="{claim}"></a>') == 1 for claim, _ in shown)


def test_the_page_begins_with_the_overview_and_the_counts(page: Path) -> None:
    claims, suites, found = committed()
    html, text = ((page / name).read_text(encoding="utf-8") for name in ("index.html", "claims.md"))
    order = (
        "Which claims hold?</h1>",
        'class="scroll overview"',
        '<th scope="col">do not hold</th>',
        "No verdict here",
    )
    assert all(html.index(a) < html.index(b) for a, b in pairwise(order))
    assert text.index("| DBN |") < text.index("| do not hold |") < text.index("No verdict here")
    table = overview_of_page(html)
    assert table.count("<tr>") - table.count("<thead>") == len(claims.claims) + len(claims.papers)
    assert table.count("<thead>") == len(claims.papers) + 1  # and that of the counts
    for suite in suites:
        assert f'<th scope="col">{suite.name}</th>' in table
    for key, paper in claims.papers.items():
        mine = [v for v in found if v.claim in {entry.id for entry in claims.of(key)}]
        numbers = [sum(v.measured and v.verdict == word for v in mine) for word in SHOWN]
        cells = [len(claims.of(key)), *numbers]
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        assert f'<th scope="row" class="text">{paper.name}</th>{row}' in html


def test_the_command_writes_the_page_and_a_table(tmp_path: Path) -> None:
    rows = ROOT / "results" / "reference" / "digits"
    done = CliRunner().invoke(application(), ["claims", "--rows", str(rows), "--reports", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Claims" in done.output
    assert "index.html" in done.output
    written = {path.name for path in (tmp_path / "claims").iterdir()}
    assert written == {"index.html", "claims.md", "claims.csv"}
    assert f"--rows {rows}" in (tmp_path / "claims" / "claims.md").read_text(encoding="utf-8")


def test_a_temperature_scaled_network_is_shown_as_context(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    shutil.copytree(ROOT / "results" / "reference" / "digits", rows)
    summary = pd.read_csv(rows / "summary.csv")
    summary = summary[summary["label"] != "Single (temperature-scaled)"]
    single = summary[summary["size"] == 1].assign(
        label="Single (temperature-scaled)", method="single", dee_raw=1.4, dee_raw_low=-INF, dee_raw_high=1.75
    )
    pd.concat([summary, single]).to_csv(rows / "summary.csv", index=False)
    render_claims([rows], tmp_path / "out")
    assert (
        "Raw DEE of one temperature-scaled network: 1.40 [< 1, 1.75]." in (tmp_path / "out" / "claims.md").read_text()
    )
    assert "<td>1.40 [&lt; 1, 1.75]</td>" in (tmp_path / "out" / "index.html").read_text()


def test_folders_are_checked(tmp_path: Path) -> None:
    digits = ROOT / "results" / "reference" / "digits"
    with pytest.raises(SpecError, match="no result rows"):
        load_suites([])
    with pytest.raises(SpecError, match="Two folders hold rows of the suite 'digits'"):
        load_suites([digits, digits])
    with pytest.raises(ArtefactError, match="is missing"):
        load_suites([tmp_path])


def test_deciding_imports_no_torch() -> None:
    code = "import benchmarks.claims.render, sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_numbers_in_words() -> None:
    assert words.effect(-0.0067, -0.0133, -0.0004, "acc", True) == "−0.67 [−1.33, −0.04] points"
    assert words.effect(1.22, -math.inf, 2.06, "dee_raw", False) == "1.22 [< 1, 2.06]"
    assert words.effect(1.0871, 1.0871, 1.0871, "macs_rel", False) == "1.087×"
    assert words.effect(0.01, NAN, NAN, "nll", True) == "+0.0100"
