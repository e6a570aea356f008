"""From scored cells to means, differences and marks: what is paired with what, and what repetitions share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.results.equivalents import equivalent, fitted
from benchmarks.results.pairing import CellResult, Pairing, by_method
from benchmarks.results.pools import member_effects, pool_effects
from benchmarks.results.rows import _corrected, _mark_best, add_equivalents
from benchmarks.statistics import Means, holm
from dbn_core.errors import ArtefactError
from dbn_core.metrics.dee import deep_ensemble_equivalent
from dbn_core.metrics.selective import augrc, augrc_terms
from dbn_core.tasks.base import Scores
from dbn_core.tasks.classification import Classification

RNG = np.random.default_rng(0)


def result(method: str, size: int, repetition: int, examples: dict[str, Any], members: tuple = (), **rest: Any) -> Any:
    cell = SimpleNamespace(
        spec=method,
        label=method.upper(),
        size=size,
        repetition=repetition,
        members=members,
        method=SimpleNamespace(name=method, competes=method != "de"),
        is_reference=method == "de",
    )
    return CellResult(cell, Scores(examples=examples, **rest))


def test_methods_are_paired_on_common_repetitions() -> None:
    a, b = RNG.normal(size=(4, 30)), RNG.normal(size=(3, 30))
    cells = [result("a", 1, r, {"nll": a[r]}) for r in (3, 0, 1, 2)]
    cells += [result("b", 1, r, {"nll": b[i]}) for i, r in enumerate((1, 2, 5))]
    pairing = Pairing(by_method(cells))
    expected = Means((a[1:3] - b[:2])[None]).test()
    assert vars(pairing.difference("nll", ("a", 1), ("b", 1))) == pytest.approx(vars(expected))
    assert vars(pairing.mean("nll", ("a", 1))) == pytest.approx(vars(Means(a[None]).interval()))
    assert pairing.difference("acc", ("a", 1), ("b", 1)) is None
    assert np.isnan(pairing.mean("acc", ("a", 1)).value)


def test_scores_of_whole_splits_have_an_interval_over_repetitions() -> None:
    values = [1.2, 1.5, 1.1]
    cells = [result("a", 1, r, {}, split={"temperature": value}) for r, value in enumerate(values)]
    got = Pairing(by_method(cells)).mean("temperature", ("a", 1))
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (got.low, got.high) == pytest.approx(expected)


def test_where_each_repetition_splits_the_data_anew_repetitions_are_the_units() -> None:
    # Test splits of different examples, and even of different sizes; methods see the same within a repetition.
    sizes = (30, 31, 29)
    ids = [RNG.permutation(60)[:n] for n in sizes]
    scores = {m: [RNG.normal(loc, size=n) for n in sizes] for m, loc in (("a", 0.0), ("b", 1.0))}
    cells = [result(m, 1, r, {"nll": each[r]}, ids=ids[r]) for m, each in scores.items() for r in range(3)]
    pairing = Pairing(by_method(cells))
    gaps = [a.mean() - b.mean() for a, b in zip(scores["a"], scores["b"], strict=True)]
    got = pairing.difference("nll", ("a", 1), ("b", 1))
    test = stats.ttest_1samp(gaps, 0)
    assert got is not None
    assert (got.value, got.p_value) == pytest.approx((np.mean(gaps), test.pvalue))
    assert (got.low, got.high) == pytest.approx(tuple(test.confidence_interval()))
    statement = " ".join(pairing.statement("independent"))
    assert "other random splits of these data" in statement
    assert "crossed" not in statement


def test_members_in_common_widen_an_interval() -> None:
    scores = RNG.normal(size=(3, 40))
    overlapping = [("m0", "m1"), ("m1", "m2"), ("m2", "m0")]
    apart = [("m0", "m1"), ("m2", "m3"), ("m4", "m5")]
    skill = RNG.normal(size=(4, 1)) + np.zeros((4, 40))
    effects = {"nll": member_effects(skill, -skill / 3)}
    widths = []
    for members in (overlapping, apart):
        cells = [result("de", 2, r, {"nll": scores[r]}, members[r]) for r in range(3)]
        got = Pairing(by_method(cells), effects).mean("nll", ("de", 2))
        widths.append(got.high - got.low)
    plain = Means(scores[None]).test()
    assert widths[1] == pytest.approx(plain.high - plain.low)
    assert widths[0] > widths[1]


def test_a_score_of_splits_that_a_member_alone_lacks_has_no_interval_in_a_shared_pool() -> None:
    # All of a pool in each repetition: the same value thrice, which does not say that it has no spread.
    cells = [result("de", 2, r, {"nll": np.ones(9)}, ("m0", "m1"), split={"auroc_mi": 0.8}) for r in range(3)]
    skill = RNG.normal(size=(4, 1)) + np.zeros((4, 9))
    pairing = Pairing(by_method(cells), {"nll": member_effects(skill, -skill / 3)})
    got = pairing.mean("auroc_mi", ("de", 2))
    assert got.value == pytest.approx(0.8)
    assert np.isnan([got.low, got.high]).all()
    assert pairing.mean("nll", ("de", 2)).high > 1


# --------------------------------------------------------------------------------------------- effects of a pool


def test_effects_of_a_pool_come_from_its_largest_stored_ensemble() -> None:
    members, n, k = 4, 25, 3
    logits = 2 * RNG.normal(size=(2, members, n, k))
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    labels = RNG.integers(0, k, n)
    arrays = {"test": log_probs[0], "validation": log_probs[1], "test_labels": labels, "validation_labels": labels}
    loaded = []

    def load(kind: str, key: str) -> dict[str, Any]:
        loaded.append(key)
        if key == "lost":
            raise ArtefactError("lost")
        return arrays

    def plan(sharing: str) -> Any:
        made = [("de", 1, "p"), ("de", members, "lost"), ("de", members, "p"), ("ed", members, "e"), ("de", 3, "p")]
        cells = [
            SimpleNamespace(method=SimpleNamespace(nested=True), is_reference=m == "de", size=s, predictions=p)
            for m, s, p in made
        ]
        suite = SimpleNamespace(pool=SimpleNamespace(sharing=sharing), task=Classification())
        return SimpleNamespace(suite=suite, cells=cells)

    store = SimpleNamespace(has=lambda *which: True, arrays=load)
    assert pool_effects(plan("independent"), store) == {}
    effects = pool_effects(plan("shared"), store)
    assert loaded == ["lost", "p"]
    between = {"kl_to_ensemble", "mutual_information", "disagreement"}  # no member has them alone
    assert set(effects) == {*Classification.scores} - between
    probs = np.exp(log_probs[0])
    right = np.arange(n), labels
    alone = np.stack([-np.log(p[right]) for p in probs])
    others = np.stack([-np.log(np.delete(probs, m, 0).mean(0)[right]) for m in range(members)])
    np.testing.assert_allclose(effects["nll"].covariance, member_effects(alone, others).covariance, rtol=1e-6)
    assert effects["nll"].members == members


# ------------------------------------------------------------------------------------------------ tables of a suite


def test_p_values_are_corrected_within_one_score_and_kind_of_reference() -> None:
    kinds = [(3, "DE-1"), (3, "DE-3"), (5, "DE-1"), (5, "DE-5"), (5, "A of size 3"), (5, "DE-3")]
    rows = [
        {"method": "a", "label": "A", "size": size, "reference": reference, "metric": metric, "p_value": p}
        for metric in ("nll", "acc")
        for (size, reference), p in zip(kinds, RNG.uniform(0, 0.1, len(kinds)), strict=True)
    ]
    frame = _corrected(Classification(), rows)
    families = [(0, 2), (1, 3), (4, 5)]  # one network; the ensemble of that size; another method, or another ensemble
    for start in (0, len(kinds)):
        for family in families:
            at = [start + i for i in family]
            assert frame["p_holm"].iloc[at].tolist() == pytest.approx(holm(frame["p_value"].to_numpy()[at]).tolist())
    assert list(_corrected(Classification(), []).columns) == list(frame.columns)


def test_marks_take_the_number_of_rivals_into_account() -> None:
    # A rival that a single test tells from the best, and the correction for twenty does not.
    base = RNG.normal(size=(3, 200))
    scores = {"best": base}
    noise = 0.3 * RNG.normal(size=(20, 3, 200))
    gap = next(g for g in np.linspace(0, 0.5, 500) if Means((noise[0] + g)[None]).test().p_value < 0.03)
    scores |= {f"m{i}": base + noise[i] + (gap if i == 0 else 5.0) for i in range(20)}
    cells = [result(m, 1, r, {"nll": each[r]}) for m, each in scores.items() for r in range(3)]
    groups = by_method(cells)

    def marks(names: list[str]) -> dict[str, str]:
        chosen = {key: group for key, group in groups.items() if key[0] in names}
        summary = [{"method": m, "size": 1, "nll_mean": scores[m].mean()} for m in names]
        for row in summary:
            row |= {
                f"{score}_mean": np.nan
                for score, known in Classification.scores.items()
                if known.better and score != "nll"
            }
        _mark_best(Classification(), summary, chosen, Pairing(chosen), ranked=True)
        return {row["method"]: row["nll_mark"] for row in summary}

    assert marks(["best", "m0"]) == {"best": "best", "m0": ""}
    # The others differ so clearly that Holm has done with them before; only as many as are near count.
    assert marks(list(scores))["m0"] == ""
    near = {f"n{i}": base + noise[i] + gap for i in range(1, 20)}
    scores |= near
    groups |= by_method([result(m, 1, r, {"nll": each[r]}) for m, each in near.items() for r in range(3)])
    assert marks(["best", "m0", *near])["m0"] == "tied"


def test_equivalents_of_the_summary_are_those_of_the_engine() -> None:
    curve = {size: 0.5 + 0.4 / size + 0.02 * RNG.normal(size=(3, 50)) for size in (1, 2, 4)}
    method = 0.75 + 0.02 * RNG.normal(size=(3, 50))
    cells = [result("de", size, r, {"nll": each[r]}) for size, each in curve.items() for r in range(3)]
    cells += [result("a", 2, r, {"nll": method[r]}) for r in range(3)]
    groups = by_method(cells)
    summary = [{"method": method_, "size": size} for method_, size in groups]
    add_equivalents(Classification(), summary, groups, Pairing(groups))
    frame = pd.DataFrame(summary).set_index(["method", "size"])
    gaps = Means(method - np.stack(list(curve.values())))
    for column, expected in (("dee_raw", equivalent(gaps, [1, 2, 4])), ("dee_raw_fit", fitted(gaps, [1, 2, 4]))):
        got = frame.loc[("a", 2), [column, f"{column}_low", f"{column}_high"]].tolist()
        assert got == pytest.approx([expected.value, expected.low, expected.high])
    assert frame.loc[("de", 4), ["dee_raw", "dee_raw_low", "dee_raw_high"]].tolist() == [4, 4, 4]
    assert frame["dee_cal"].isna().all()


def test_an_equivalent_on_augrc_is_read_off_the_areas_of_the_ensembles() -> None:
    """By the terms of examples, whose means are the areas."""

    def confident(noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        skill = np.random.default_rng(7).normal(1, 1.5, 400)  # of the same examples in each repetition
        score = skill + noise * rng.normal(size=400)
        return 1 / (1 + np.exp(-np.abs(score))), (score > 0).astype(float)

    noises = {("de", 1): 1.6, ("de", 2): 1.2, ("de", 4): 0.9, ("a", 2): 1.05}
    areas, cells = {}, []
    for (method, size), noise in noises.items():
        found = [confident(noise, 10 * size + r + 100 * (method == "a")) for r in range(3)]
        areas[method, size] = np.mean([augrc(*each) for each in found])
        cells += [result(method, size, r, {"augrc": augrc_terms(*each)}) for r, each in enumerate(found)]
    groups = by_method(cells)
    summary = [{"method": method, "size": size} for method, size in groups]
    add_equivalents(Classification(), summary, groups, Pairing(groups))
    row = pd.DataFrame(summary).set_index(["method", "size"]).loc[("a", 2)]
    curve = [areas["de", size] for size in (1, 2, 4)]
    assert row["dee_augrc"] == pytest.approx(deep_ensemble_equivalent(areas["a", 2], [1, 2, 4], curve))
    assert 1 < row["dee_augrc_low"] < row["dee_augrc"] < row["dee_augrc_high"]
    assert np.isnan(row["dee_raw"])
