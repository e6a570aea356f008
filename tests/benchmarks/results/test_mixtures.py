"""Mixtures of stored results: scores by hand, and the greedy choice against all choices."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from benchmarks.commands.common import load_plan
from benchmarks.results.mixtures import MixtureSelection, _greedy, _mean_nll, _Result
from benchmarks.suite.names import cells_of_result
from dbn_core.errors import SpecError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DBN_RELEASED", str(ROOT / "results/released"))
        return MixtureSelection(*load_plan("cifar10-cpu", tmp_path_factory.mktemp("store"), None, None, None))


def results(seed, macs):
    """Methods of one size whose log p(label) are random, [2, 50]."""
    draws = np.random.default_rng(seed).uniform(0.05, 1, (len(macs), 2, 50))
    return {f"{name}@1": _Result({}, cost, np.log(p)) for name, cost, p in zip("abcdef", macs, draws, strict=False)}


def test_scores_are_those_of_the_averaged_probabilities(mixtures):
    found = mixtures.score({"DE@2": 3, "ed (48 EPOCHS)@8": 1})
    nll, acc = [], []
    for repetition in range(3):
        mean = 0.0
        for name, share in (("DE@2", 0.75), ("ED (48 epochs)@8", 0.25)):
            cells = cells_of_result(mixtures._plan.cells, name, "cifar10-cpu")
            cell = next(cell for cell in cells if cell.repetition == repetition)
            stored = mixtures._store.arrays("predictions", cell.predictions)
            mean = mean + share * np.exp(stored["test"][: cell.terms].astype(np.float64)).mean(0)
        labels = stored["test_labels"]
        nll.append(-np.log(mean[np.arange(len(labels)), labels]).mean())
        acc.append((mean.argmax(1) == labels).mean())
    assert found.n == 3
    assert found.nll.value == pytest.approx(np.mean(nll), abs=1e-5)
    assert found.acc.value == pytest.approx(np.mean(acc), abs=1e-9)
    assert found.macs_rel == pytest.approx(3)


def test_a_deep_ensemble_alone_is_worth_its_own_size(mixtures):
    found = mixtures.score({"DE@4": 1})
    assert found.dee_raw.value == pytest.approx(4, abs=1e-6)
    assert found.dee_cal.value == pytest.approx(4, abs=1e-6)


def test_the_cheapest_mixture_is_cheaper_and_as_good_on_validation(mixtures):
    found = mixtures.cheapest([3])[3]
    assert found.macs_rel < 3
    assert found.validation_nll <= mixtures.score({"DE@3": 1}).validation_nll
    assert mixtures.best(found.macs_rel).validation_nll <= found.validation_nll + 1e-9
    assert mixtures.best(found.macs_rel - 0.26).macs_rel < found.macs_rel


@pytest.mark.parametrize("seed", range(5))
def test_the_greedy_choice_keeps_to_its_budget_and_comes_near_the_best(seed):
    known = results(seed, [1, 1, 2, 3])
    for budget in (1, 2, 4, 7):
        shares = _greedy(known, budget)
        assert sum(known[name].macs for name in shares) <= budget
        assert sum(shares.values()) == pytest.approx(1)
        grid = np.arange(0, 1.01, 0.1)
        affordable = [pair for pair in combinations(known, 2) if sum(known[name].macs for name in pair) <= budget]
        pairs = [_mean_nll(known, {a: w, b: 1 - w}) for a, b in affordable for w in grid]
        alone = [_mean_nll(known, {name: 1.0}) for name in known if known[name].macs <= budget]
        assert _mean_nll(known, shares) <= min(alone) + 1e-12
        if budget == 7:  # everything is affordable
            assert _mean_nll(known, shares) <= min(pairs) + 2e-3


def test_sizes_of_one_method_are_not_mixed():
    known = results(0, [1, 1])
    known = {"a@1": known["a@1"], "a@2": known["b@1"]}
    assert len(_greedy(known, 10)) == 1
    assert _greedy(known, 0.5) == {}


@pytest.mark.parametrize(
    ("weights", "said"),
    [({}, "at least one"), ({"DE@1": -1}, "positive"), ({"DE@1": float("nan")}, "positive"), ({"DE@99": 1}, "DE@99")],
)
def test_bad_weights_are_refused(mixtures, weights, said):
    with pytest.raises(SpecError, match=said):
        mixtures.score(weights)
