"""Results, networks and what-if ensembles from Python, offline, on the released suite."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import benchmarks
from benchmarks import evaluate, load_member, load_method, load_predictions, load_results, mix, python
from benchmarks.suite.load import load_suite
from dbn_core.data import sources
from dbn_core.data.augment import to_float
from dbn_core.data.cifar10_jpeg import Cifar10JpegSource
from dbn_core.errors import DataError, SpecError
from dbn_core.tasks.class_scores import score_arrays
from tests.support.command import DbnBench

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


def test_scores_of_uncertainty_are_those_that_dense_kernels_and_counting_gave() -> None:
    """Computed from the released predictions by other code: smooth ECE and AUGRC in %, MI in nats, sizes of sets."""
    given = load_predictions(SUITE, "DE@8")
    arrays = {"test": given.log_probs, "test_labels": given.labels}
    arrays |= {"validation": given.validation_log_probs, "validation_labels": given.validation_labels}
    for size, (smooth, information) in {1: (5.60, None), 2: (2.35, 0.046), 4: (1.37, 0.073), 8: (1.08, 0.089)}.items():
        found = {name: values.mean() for name, values in score_arrays(arrays, size).examples.items()}
        assert 100 * found["smece"] == pytest.approx(smooth, abs=0.006)
        assert found.get("mutual_information") == (information and pytest.approx(information, abs=6e-4))
        if size > 1:
            assert found["disagreement"] == pytest.approx(0.109, abs=5e-4)
    rows = load_results(SUITE).set_index(["family", "size"]).sort_index()
    sizes = [rows.loc[("de", size), "lac_size_mean"] for size in (1, 2, 4, 8)]
    assert sizes == pytest.approx([1.279, 1.213, 1.173, 1.130], abs=6e-4)
    curve = [100 * rows.loc[("de", size), "augrc_mean"] for size in range(1, 9)]
    assert curve == pytest.approx([1.767, 1.410, 1.294, 1.238, 1.199, 1.169, 1.151, 1.136], abs=6e-4)
    assert rows.loc[("ts", 1), "dee_augrc"] == -np.inf  # a temperature is not worth a member


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
        load_method(SUITE, "ED (48 epochs)@8", repetition=1)


@pytest.mark.parametrize(
    "result",
    [
        *("ED@8", "ED (48 epochs)@8", "ED (from source)@8", "ED + bridge@8", "TS@1"),
        *("DBN (blind, KL)@3", "Direct (blind, KL)@3", "FGE@3"),
        *("Last-layer Laplace@1", "Last-layer Laplace (probit)@1", "From source, labels alone@1"),
        *("From source, labels alone (48 epochs)@1", "Students' recipe, labels alone@1", "END²@8"),
        *("DBN (blind, KL, one bridge)@8", "Direct (blind, KL, one bridge)@8"),
        *("DBN (blind, KL)@5", "DBN (blind, KL)@7", "ED (averaged)@8", "ED of two views@1"),
        *("Snapshots@3", "SWA@1", "Hydra (linear heads)@8", "ED (from source)@3", "ED (from source)@5"),
    ],
)
def test_released_parts_predict_what_is_released(result: str) -> None:
    data = Cifar10JpegSource().load()
    with torch.no_grad():
        again = load_method(SUITE, result).double()(to_float(data.test.images[:200]).double()).numpy()
    known = load_predictions(SUITE, result).log_probs[:, :200].astype(np.float64)
    assert (np.abs(known - again.reshape(known.shape)) <= 2**-11 * np.abs(known) + 1e-4).all()


@pytest.mark.slow
@pytest.mark.parametrize("result", ["ED (48 epochs)@8", "DBN (blind, KL)@3"])
def test_what_is_released_is_exported_from_a_clone(dbn_bench: DbnBench, result: str) -> None:
    said = dbn_bench("export", SUITE, result, "--out", "exported")
    assert said.code == 0, said.err
    session = onnxruntime.InferenceSession("exported/model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": to_float(Cifar10JpegSource().load().test.images[:50]).numpy()})[0]
    known = load_predictions(SUITE, result).log_probs[0, :50].astype(np.float64)
    assert (np.abs(known - found) <= 2**-11 * np.abs(known) + 1e-3).all()
