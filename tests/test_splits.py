"""Suites whose every repetition splits its data anew: keys, artefacts, predictions from outside, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import DE, ED, HEAD

from benchmarks.results.external import Entry, add_external, load_external, suite_labels
from benchmarks.run import Options, RunResult, plan_suite, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Plan
from benchmarks.suite.schema import Suite, load_suite
from dbn_core.errors import DataError, SpecError

SPLITS = HEAD.replace("repetitions = 1", "repetitions = 2").replace(
    'source = "digits"', 'source = "digits"\nsplit = "repetition"'
)


def suite(folder: Path, text: str = SPLITS + DE + ED, **overrides: object) -> Suite:
    (folder / "splits.toml").write_text(text)
    return load_suite(str(folder / "splits.toml"), overrides)


def run(folder: Path) -> RunResult:
    options = Options(store=folder / "store", rows=folder / "rows", reports=folder / "reports", jobs=0, device="cpu")
    return run_suite(suite(folder), options, lambda event: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("splits")
    return folder, run(folder)


def test_every_repetition_is_made_from_its_own_data(finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    assert not result.failures
    chosen, store = suite(folder), Store(folder / "store")
    data = [chosen.source(repetition).load() for repetition in range(2)]
    assert not np.array_equal(data[0].test.labels, data[1].test.labels)
    for cell in result.plan.cells:
        of = data[cell.repetition]
        for kind, key in [("predictions", cell.predictions), *(("member", key) for key in cell.members)]:
            assert result.plan.nodes[key].recipe["data"] == of.fingerprint, kind
        assert all(result.plan.nodes[key].recipe["data"] == of.fingerprint for key in cell.parts)
        arrays = store.arrays("predictions", cell.predictions)
        np.testing.assert_array_equal(arrays["test_labels"], of.test.labels)
        np.testing.assert_array_equal(arrays["validation_labels"], of.validation.labels)
        assert of.test_ids is not None
        np.testing.assert_array_equal(arrays["test_ids"], of.test_ids)
        assert arrays["test_ids"].dtype == np.int64
    report = (folder / "reports" / "splits" / "report.md").read_text()
    assert "each repetition draws its own 144 training, 36 validation and 1617 test images out of all 1797" in report


def test_members_are_scored_on_images_that_they_were_not_trained_on(finished: tuple[Path, RunResult]) -> None:
    """A stored member, loaded by hand, gives the stored predictions on the test images of its own repetition alone."""
    import torch

    from benchmarks.work.worker import Bench

    folder, result = finished
    store = Store(folder / "store")
    bench = Bench(suite(folder), store, "cpu")
    for cell in result.plan.cells:
        if (cell.label, cell.size) == ("DE", 1):
            bench.repetition = cell.repetition
            with torch.no_grad():
                found = bench._member(cell.members[0])(bench.data.test.images[:50].float() / 255).log_softmax(-1)
            stored = store.arrays("predictions", cell.predictions)["test"][0, :50]
            np.testing.assert_allclose(found.numpy(), stored, atol=1e-5)


def test_cost_is_counted_once_for_all_repetitions(finished: tuple[Path, RunResult]) -> None:
    _, result = finished
    costs = {(cell.label, cell.size): set() for cell in result.plan.cells}
    for cell in result.plan.cells:
        costs[cell.label, cell.size].add(cell.cost)
    assert all(len(keys) == 1 for keys in costs.values())


def test_a_second_run_loads_no_data(finished: tuple[Path, RunResult], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = finished
    before = pd.read_csv(folder / "rows" / "rows.csv")
    monkeypatch.setattr("dbn_core.data.DigitsSource.load", lambda *a: pytest.fail("the data were loaded again"))
    assert not run(folder).outcome.made
    pd.testing.assert_frame_equal(pd.read_csv(folder / "rows" / "rows.csv"), before)


def test_further_repetitions_leave_those_made_alone(finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    more = plan_suite(suite(folder, repetitions=3), Store(folder / "store"))
    assert set(result.plan.nodes) < set(more.nodes)
    assert more.data.splits[:2] == result.plan.data.splits


def test_a_fixed_split_gives_the_keys_it_always_gave(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fixed = plan_suite(suite(tmp_path, HEAD + DE + ED), store)
    stated = plan_suite(suite(tmp_path, HEAD + DE + ED, **{"data.split": "fixed"}), store)
    assert list(fixed.nodes) == list(stated.nodes)
    assert fixed.data.splits == ()
    recipe = next(node.recipe for node in fixed.nodes.values() if node.kind == "member")
    assert set(recipe) == {"format", "data", "network", "recipe", "seed", "pool", "index"}
    assert recipe["data"] == load_suite(str(tmp_path / "splits.toml")).data.load().fingerprint


def test_a_shared_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a shared pool has one training split") as caught:
        suite(tmp_path, **{"pool.sharing": "shared"})
    assert "\n" not in str(caught.value)


def test_a_repetition_that_is_not_there_has_no_data(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="in each of 2 repetitions, and has no repetition 3"):
        suite(tmp_path).source(2)
    fixed = suite(tmp_path, HEAD + DE)
    assert fixed.source(7) is fixed.data


@pytest.fixture
def predictions(finished: tuple[Path, RunResult]) -> tuple[Plan, Store, dict[str, np.ndarray]]:
    """What somebody else would hand in for repetition 2: the suite's own, without the places of the images."""
    folder, result = finished
    store = Store(folder / "store")
    cell = next(c for c in result.plan.cells if c.repetition == 1 and (c.label, c.size) == ("DE", 2))
    arrays = store.arrays("predictions", cell.predictions)
    return result.plan, store, {name: array for name, array in arrays.items() if name != "test_ids"}


def test_predictions_from_outside_are_those_of_a_repetition(
    predictions: tuple[Plan, Store, dict[str, np.ndarray]],
) -> None:
    plan, store, arrays = predictions
    with pytest.raises(DataError, match="not the suite's: predict its test split of repetition 1 in its order"):
        add_external(plan, store, Entry("Mine", 2, 0, source="mine"), arrays)
    with pytest.raises(SpecError, match="has no repetition 3"):
        add_external(plan, store, Entry("Mine", 2, 2), arrays)
    add_external(plan, store, Entry("Mine", 2, 1), arrays)
    (cell,) = load_external(plan, store)
    assert cell.repetition == 1
    own = suite_labels(plan, store, 1)
    np.testing.assert_array_equal(store.arrays("predictions", cell.predictions)["test_ids"], own["test_ids"])
    assert not np.array_equal(own["test_ids"], suite_labels(plan, store, 0)["test_ids"])
