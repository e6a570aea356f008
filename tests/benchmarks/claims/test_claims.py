"""The claims: how effects, verdicts and the page come about, on made-up rows and on the committed ones."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmarks.claims.decide import Check, Claim, Rows, Verdict, contrasts, decide
from benchmarks.claims.page import load_suites, reference_folders, render_claims, suite_name, verdicts
from benchmarks.claims.papers import CLAIMS, PAPERS
from benchmarks.cli import application
from benchmarks.published import MARKS
from benchmarks.report.load import Results
from benchmarks.results.pairing import CellResult, Pairing
from benchmarks.results.rows import _contrasted
from benchmarks.statistics import independent
from dbn_core.errors import ArtefactError, SpecError
from dbn_core.tasks.base import Scores
from dbn_core.tasks.classification import Classification

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = ROOT / "results" / "reference"
NAN, INF = float("nan"), float("inf")

# --------------------------------------------------------------------------------------------------- made-up suites


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
            comparisons, columns=["label", "size", "reference", "metric", "difference", "low", "high", "p_holm"]
        ),
        pd.DataFrame(),
        {"suite": "made-up", "dataset": {"test": 100}, "statistics": ["Student's t."]},
    )


def dee(value: float, low: float, high: float) -> Rows:
    return Rows(results(summary={("A", 3): {"dee_raw": value, "dee_raw_low": low, "dee_raw_high": high}}))


def with_difference(difference: float, low: float, high: float, p: float = 0.5) -> Rows:
    """A against DE-3 with a difference in the comparisons."""
    scores = {"nll": [0.5, 0.5, 0.5]}
    return Rows(results({("A", 3): scores, ("DE", 3): scores}, {}, [("A", 3, "DE-3", "nll", difference, low, high, p)]))


def claim(function, *subjects: str, suite: str = "") -> Claim:
    return Claim("a-claim", "dbn", "a", "A is good.", subjects or ("A@3",), function, "why not", suite=suite)


def verdict(*checks: Check) -> Verdict:
    return Verdict(claim(lambda rows, subject: checks), "made-up", "A@3", checks)


# ------------------------------------------------------------------------------------------------- effects and checks


@pytest.mark.parametrize(
    ("value", "low", "high", "above", "below"),
    [
        (2.5, 2.1, 3.0, "holds", "does not hold"),
        (1.5, 1.0, 1.9, "does not hold", "holds"),
        (2.1, 1.8, 2.4, "undecided", "undecided"),
        (-INF, -INF, -INF, "does not hold", "holds"),  # censored: worse than one network
        (INF, INF, INF, "holds", "does not hold"),  # censored: better than the largest ensemble
        (1.7, -INF, INF, "undecided", "undecided"),
        (1.2, -INF, 1.9, "does not hold", "holds"),
        (2.4, 2.2, INF, "holds", "does not hold"),
        (2.5, NAN, NAN, "undecided", "undecided"),  # one repetition has no interval
    ],
)
def test_a_value_is_held_to_a_bound(value: float, low: float, high: float, above: str, below: str) -> None:
    effect = dee(value, low, high).value("dee_raw", "A@3")
    assert (effect.above(2).word, effect.below(2).word) == (above, below)
    assert effect.n == 3


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (-0.04, -0.02, "does not hold", "holds"),
        (-0.005, 0.01, "holds", "does not hold"),  # a margin of 0.01 below zero
        (-0.02, 0.01, "undecided", "undecided"),
        (-0.01, 0.01, "undecided", "does not hold"),  # an end on the bound is not on the claimed side
    ],
)
def test_a_difference_may_have_a_margin(low: float, high: float, above: str, below: str) -> None:
    effect = with_difference((low + high) / 2, low, high).gap("nll", "A@3", "DE@3")
    assert (effect.above(-0.01).word, effect.below(-0.01).word) == (above, below)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-0.004, 0.006, "holds"),
        (0.02, 0.03, "does not hold"),
        (-0.03, -0.02, "does not hold"),
        (0.001, 0.02, "undecided"),
        (-0.05, 0.05, "undecided"),  # not significant is not the same
    ],
)
def test_no_difference_takes_an_interval_within_the_margin(low: float, high: float, word: str) -> None:
    assert with_difference((low + high) / 2, low, high).gap("nll", "A@3", "DE@3").within(0.01).word == word


def test_a_significance_level_may_be_demanded_too() -> None:
    assert with_difference(-0.03, -0.05, -0.01, p=0.004).gap("nll", "A@3", "DE@3").below(0, p=0.01).word == "holds"
    assert with_difference(-0.03, -0.05, -0.01, p=0.04).gap("nll", "A@3", "DE@3").below(0, p=0.01).word == "undecided"


def test_a_pair_without_a_comparison_is_compared_by_repetition() -> None:
    rows = Rows(results({("A", 3): {"nll": [0.20, 0.22, 0.24]}, ("B", 3): {"nll": [0.30, 0.325, 0.35]}}))
    effect, expected = rows.gap("nll", "A@3", "B@3"), independent(np.array([-0.10, -0.105, -0.11]))
    assert (effect.value, effect.low, effect.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert (effect.n, effect.basis) == (3, "paired t over repetitions")


def test_only_shared_repetitions_are_paired() -> None:
    rows = Rows(results({("A", 3): {"nll": [0.20, 0.22, 0.9]}, ("B", 3): {"nll": [0.30, 0.33]}}))
    effect = rows.gap("nll", "A@3", "B@3")
    assert (effect.n, effect.value) == (2, pytest.approx(-0.105))


def test_a_comparison_of_the_reversed_pair_is_turned() -> None:
    scores = {"nll": [0.5, 0.5, 0.5]}
    row = ("B", 5, "A of size 3", "nll", 0.02, 0.01, 0.05, 0.01)
    effect = Rows(results({("A", 3): scores, ("B", 5): scores}, {}, [row])).gap("nll", "A@3", "B@5")
    assert (effect.value, effect.low, effect.high) == (-0.02, -0.05, -0.01)


def test_costs_are_compared_without_interval() -> None:
    rows = Rows(results(summary={("A", 3): {"macs_rel": 1.158}, ("B", 3): {"macs_rel": 1.41}}))
    effect = rows.gap("macs_rel", "A@3", "B@3")
    assert (str(effect), effect.below(0).word, effect.within(0.3).word) == ("−0.252×", "holds", "holds")
    assert rows.value("macs_rel", "A@3").below(1.1).word == "does not hold"


def test_the_temperature_scaled_effect_stands_next_to_the_raw_one() -> None:
    values = {("A", 3): {"nll": [0.2, 0.2], "cnll": [0.1, 0.2]}, ("DE", 1): {"nll": [0.3, 0.3], "cnll": [0.1, 0.3]}}
    rows = Rows(results(values))
    assert rows.gap("nll", "A@3", "DE@1").twin.startswith("after temperature scaling −0.0500 [")
    assert rows.gap("cnll", "A@3", "DE@1").twin == "raw −0.1000"


# ------------------------------------------------------------------------------------------------------------ verdicts


def test_all_checks_must_hold_and_one_that_fails_refuses() -> None:
    rows = Rows(
        results(
            {("A", 3): {"nll": [0.2, 0.2, 0.2]}, ("B", 3): {"nll": [0.3, 0.31, 0.3]}},
            {("A", 3): {"macs_rel": 1.2, "dee_raw": 2.1, "dee_raw_low": 1.5, "dee_raw_high": 2.6}},
        )
    )
    good, gone = rows.gap("nll", "A@3", "B@3").below(0), rows.gap("nll", "A@3", "C@3").below(0)
    cheap, dear = (rows.value("macs_rel", "A@3").below(bound) for bound in (1.3, 1.1))
    unclear = rows.value("dee_raw", "A@3").above(2)
    for checks, word in (
        ((good, cheap), "holds"),
        ((good, unclear), "undecided"),
        ((good, unclear, dear), "does not hold"),
        ((dear, gone), "does not hold"),  # one failed check decides
        ((good, gone), "no data"),
        ((unclear, gone), "no data"),
    ):
        found = verdict(*checks)
        assert found.word == found.deciding.word == word


def test_missing_rows_are_named() -> None:
    rows = Rows(results({("A", 3): {"nll": [0.2, 0.2]}, ("C", 2): {"acc": [0.9]}}))
    assert rows.gap("nll", "A@3", "DE@1").lacking == "DE@1"
    assert rows.gap("nll", "B@3", "D@2").lacking == "B@3 and D@2"
    assert rows.value("dee_raw", "A@3").lacking == "DEE (raw) of A of size 3"
    assert "NLL of A of size 3" in rows.gap("nll", "A@3", "C@2").lacking
    assert rows.gap("nll", "A@3", "DE@1").below(0).word == "no data"


def test_each_subject_has_a_verdict_and_what_has_no_rows_has_none() -> None:
    known = results({("A", 3): {"nll": [0.2, 0.2]}, ("B", 3): {"nll": [0.4, 0.4]}, ("DE", 1): {"nll": [0.3, 0.301]}})
    about = claim(lambda rows, method: rows.gap("nll", method, "DE@1").below(0), "A@3", "B@3", "C@3")
    assert [(v.subject, v.word, v.known) for v in decide(about, Rows(known))] == [
        ("A@3", "holds", True),
        ("B@3", "does not hold", True),
        ("C@3", "no data", False),
    ]
    assert [v.subject for v in verdicts([about], [known])] == ["A@3", "B@3"]
    elsewhere = replace(about, suite="other")  # a claim of ours is decided on its suite alone
    assert decide(elsewhere, Rows(known)) == []


def test_costs_alone_decide_only_claims_about_costs() -> None:
    counted = results(summary={("A", 3): {"macs_rel": 1.1}, ("B", 3): {"macs_rel": 1.1}})
    cost = claim(lambda rows, method: rows.gap("macs_rel", method, "B@3").within(0.001), "A@3")
    assert [verdict.word for verdict in verdicts([cost], [counted])] == ["holds"]
    both = claim(lambda rows, method: [rows.gap("nll", method, "B@3").below(0), *cost.checks(rows, method)], "A@3")
    assert verdicts([both], [counted]) == []


# ------------------------------------------------------------------------------------------------- the built-in claims


def test_every_claim_is_written_out() -> None:
    keys = [one.key for one in CLAIMS]
    assert len(set(keys)) == len(keys)
    assert {one.paper for one in CLAIMS} == set(PAPERS)
    for one in CLAIMS:
        assert re.fullmatch(r'[^"]+[.]', one.sentence), one.key
        assert len(one.name) <= 45, one.key
        assert one.subjects, one.key
        assert one.published == "" or re.search(r"\[([A-Z?]+)\]$", one.published)[1] in MARKS, one.key
        assert not one.see or (ROOT / one.see).is_file(), one.key


def test_claims_compare_as_many_teachers() -> None:
    """Two cheap methods that are compared have the same size, but where their number is what the claim is about."""
    about_number = {
        *("dbn-second-bridge-helps", "dbn-second-bridge-helps-at-equal-cost", "dbn-one-bridge-saturates"),
        *("dbn-bn-saturates", "bn-second-bridge-helps", "scores-dropout", "scores-weak-members"),
        "own-more-teachers",
        *("own-student-before-one-training", "own-cheap-teachers"),  # whose sizes count passes or networks
    }
    for one in CLAIMS:
        for (label, size), (other, other_size) in contrasts([one]):
            if not {label, other} & {"DE", "SE", "Forest"} and one.key not in about_number:
                assert size == other_size, (one.key, label, other)


def test_a_run_compares_the_pairs_that_claims_need() -> None:
    wanted = contrasts(CLAIMS)
    assert len(set(wanted)) == len(wanted)
    kind = "DBN (blind, MSE)"
    assert ((kind, 5), (kind, 3)) in wanted
    assert (("DBN (paper)", 3), ("BN (medium)", 3)) in wanted

    rng = np.random.default_rng(0)
    cells = {("x", 3): kind, ("x", 5): kind, ("b", 3): "BN (medium)", ("de", 3): "DE"}
    groups, stacked = {}, {}
    for key, label in cells.items():
        stacked[key] = {score: rng.normal(size=(3, 40)) for score in ("nll", "cnll", "acc")}
        method = SimpleNamespace(name=key[0], competes=key[0] != "de")
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
    rows = pd.DataFrame(_contrasted(Classification(), groups, Pairing(groups), wanted))
    pairs = set(zip(rows["label"], rows["size"], rows["reference"], strict=True))
    assert pairs == {
        (kind, 5, f"{kind} of size 3"),
        (kind, 3, "BN (medium) of size 3"),
    }  # against DE-3 it is compared anyhow
    gap = rows[(rows["size"] == 5) & (rows["metric"] == "nll")].iloc[0]
    assert gap["difference"] == pytest.approx((stacked["x", 5]["nll"] - stacked["x", 3]["nll"]).mean())
    assert gap["low"] < gap["difference"] < gap["high"]


# -------------------------------------------------------------------------------------------- the page and its sources


def test_the_committed_verdicts_and_their_page_are_what_the_committed_rows_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found, suites = render_claims(reference_folders(), tmp_path), load_suites(reference_folders()).values()
    for name in ("claims.md", "claims.csv"):
        committed = (ROOT / "reports" / "claims" / name).read_text(encoding="utf-8")
        assert (tmp_path / name).read_text(encoding="utf-8") == committed, "run `dbn-bench claims --publish`"
    page = (tmp_path / "claims.md").read_text(encoding="utf-8")
    signs = {"holds": "✅", "does not hold": "❌", "undecided": "❔", "no data": "➖"}
    overview = page[page.index("| DBN |") : page.index("| Paper |")]
    for one in CLAIMS:
        assert page.count(f'<a id="{one.key}"></a>') == 1
        mine = [v for v in found if v.claim is one]
        marks = re.findall(rf"\[(.)\]\(#{one.key} ", overview)
        assert marks == [signs[v.word] for suite in suites for v in mine if v.suite == suite_name(suite)]
    paragraphs = re.findall(r"^\* \*\*.+: (holds|does not hold|undecided|no data)\.\*\*", page, re.MULTILINE)
    with (tmp_path / "claims.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert paragraphs == [row["verdict"] for row in rows]
    for row in rows:
        if row["low"]:
            assert float(row["low"]) <= float(row["effect"]) <= float(row["high"])


def test_claims_rest_on_rows_with_the_present_statistics() -> None:
    folders = reference_folders(REFERENCE)
    assert REFERENCE / "digits" in folders
    assert REFERENCE / "cifar10-shift" not in folders  # the trainings of cifar10-cpu, which would count twice
    old = [path.parent for path in REFERENCE.glob("*/meta.json") if '"statistics"' not in path.read_text("utf-8")]
    assert not set(old) & set(folders)
    for folder in old:
        with pytest.raises(SpecError, match="run their suite again"):
            load_suites([folder])


def test_the_command_writes_the_page_and_a_table(tmp_path: Path) -> None:
    rows = REFERENCE / "digits"
    done = CliRunner().invoke(application(), ["claims", "--rows", str(rows), "--reports", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Claims" in done.output
    assert {path.name for path in (tmp_path / "claims").iterdir()} == {"claims.md", "claims.csv"}
    assert f"--rows {rows}" in (tmp_path / "claims" / "claims.md").read_text(encoding="utf-8")


def test_folders_are_checked(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no result rows"):
        load_suites([])
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (REFERENCE / "digits").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    with pytest.raises(SpecError, match="Two folders hold rows of the suite 'digits'"):
        load_suites([REFERENCE / "digits", copy])
    with pytest.raises(ArtefactError, match="is missing"):
        load_suites([tmp_path])
