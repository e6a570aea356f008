"""Results, networks and what-if ensembles from Python, offline, on the released suite."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmarks
from benchmarks import evaluate, load_member, load_method, load_predictions, load_results, mix, python
from benchmarks.suite.load import load_suite
from dbn_core.data import sources
from dbn_core.data.augment import to_float
from dbn_core.data.cifar10_jpeg import Cifar10JpegSource
from dbn_core.errors import DataError, SpecError

ROOT = Path(__file__).resolve().parents[2]
SUITE = "cifar10-cpu"


@pytest.fixture(autouse=True)
def _from_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBN_RELEASED", str(ROOT / "results/released"))
    monkeypatch.chdir(tmp_path)


def test_the_examples_of_the_documentation() -> None:
    found = doctest.testmod(python)
    assert found.attempted >= 7
    assert found.failed == 0


def test_every_public_name_exists() -> None:
    assert all(callable(getattr(benchmarks, name)) for name in benchmarks.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_nothing'"):
        benchmarks.load_nothing  # noqa: B018


def test_a_mixture_has_the_scores_of_its_repetitions() -> None:
    found, rows = mix(SUITE, {"DE@1": 1}), load_results(SUITE).set_index(["family", "size"])
    assert found.nll.value == pytest.approx(rows.loc[("de", 1), "nll_mean"], abs=1e-6)
    assert found.macs == pytest.approx(rows.loc[("de", 1), "macs"])


def test_evaluation_of_an_ensemble_is_its_row() -> None:
    given = load_predictions(SUITE, "DE@2", repetition=1)
    found = evaluate({"test": given.log_probs, "validation": given.validation_log_probs}, SUITE, repetition=1)
    assert found.dee == pytest.approx(2.0, abs=1e-6)
    assert found.calibrated_dee == pytest.approx(2.0, abs=1e-6)
    assert found.augrc_dee == pytest.approx(2.0, abs=1e-6)
    assert found.dee_interval[0] <= 2 <= found.dee_interval[1]


def test_a_member_and_a_method_predict_as_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = load_predictions(SUITE, "DE@2")
    # The first test images, and few others: decoding all 60,000 takes far longer than everything else here.
    whole, few = sources.stratified_split, torch.arange(40)
    monkeypatch.setattr(sources, "stratified_split", lambda labels, count, draw: (few, few))
    limits = {"train_limit": 40, "unseen_limit": None, "validation_count": 40, "validation_fraction": None}
    data = load_suite(SUITE).data.model_copy(update=limits | {"test_limit": 40}).load()
    monkeypatch.setattr(sources, "stratified_split", whole)
    monkeypatch.setattr(Cifar10JpegSource, "load", lambda self: data)
    images = to_float(data.test.images)
    with torch.no_grad():
        member, ensemble = load_member(SUITE)(images), load_method(SUITE, "DE@2")(images)
    assert data.test.labels.tolist() == stored.labels[:40].tolist()
    np.testing.assert_allclose(member.log_softmax(-1).numpy(), stored.log_probs[0, :40], atol=2e-3, rtol=1e-3)
    np.testing.assert_allclose(ensemble.numpy(), stored.log_probs[:, :40], atol=2e-3, rtol=1e-3)


def test_what_is_wrong_is_one_sentence() -> None:
    with pytest.raises(SpecError, match="no result rows of 'nothing'"):
        load_results("nothing")
    with pytest.raises(SpecError, match="no result 'DE@99'"):
        load_predictions(SUITE, "DE@99")
    with pytest.raises(SpecError, match="repetitions 0, 1"):
        load_predictions(SUITE, "DE@1", repetition=99)
    with pytest.raises(SpecError, match="positive weight"):
        mix(SUITE, {"DE@1": -1})
    with pytest.raises(DataError, match=r"give \[M, 10000, 10\]"):
        evaluate(np.zeros((5, 10)), SUITE)
    with pytest.raises(SpecError, match=r"not released|lacks"):
        load_method(SUITE, "DBN (blind, KL)@3")
