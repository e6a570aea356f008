"""A split of its own for every repetition: in the data, in the keys, in what is stored, and in what is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.results.external.cells import Entry, add_external
from benchmarks.run import plan_suite, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.store.bundle import export_suite, import_bundle
from benchmarks.suite.load import load_suite
from benchmarks.suite.schema import Suite
from benchmarks.work.make import Options
from dbn_core.data.digits import DigitsSource
from dbn_core.errors import DataError, SpecError
from tests.support.tiny import DE, ED, HEAD

RESPLIT = HEAD.replace("repetitions = 1", "repetitions = 2").replace(
    'source = "digits"', 'source = "digits"\nsplit = "repetition"'
)


def load(folder: Path, text: str) -> Suite:
    file = folder / "splits.toml"
    file.write_text(text, encoding="utf-8")
    return load_suite(str(file))


def test_each_repetition_cuts_all_images_anew_into_splits_of_the_same_sizes() -> None:
    source = DigitsSource(split="repetition", test_fraction=0.6)
    first, again, second = (source.for_repetition(r).load() for r in (0, 0, 1))
    assert first.fingerprint == again.fingerprint == source.load().fingerprint
    assert first.fingerprint != second.fingerprint
    whole = DigitsSource(test_fraction=0.999, validation_fraction=0.5).load()
    for data in (first, second):
        assert [len(split) for split in data.splits.values()] == [len(split) for split in first.splits.values()]
        pixels = torch.cat([split.images for split in data.splits.values()]).flatten(1)
        everything = torch.cat([split.images for split in whole.splits.values()]).flatten(1)
        # The same images, each once, in another order.
        assert torch.equal(pixels.unique(dim=0, return_counts=True)[1], everything.unique(dim=0, return_counts=True)[1])
        assert data.test_ids is not None
        assert len(data.test_ids.unique()) == len(data.test)
    assert first.test_ids is not None
    assert not torch.equal(first.test_ids, second.test_ids)  # type: ignore[arg-type]
    assert source.for_repetition(0, seed=1).load().fingerprint not in (first.fingerprint, second.fingerprint)
    fixed = DigitsSource()
    assert fixed.for_repetition(3, seed=1) is fixed


def test_artefacts_of_a_repetition_belong_to_its_split_and_costs_to_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    plan = plan_suite(load(tmp_path, RESPLIT + DE + ED), store)
    kinds = {kind: [node for node in plan.nodes.values() if node.kind == kind] for kind in ("member", "part", "cost")}
    assert {node.recipe["split"] for node in kinds["member"]} == {0, 1}
    assert {node.recipe["split"] for node in kinds["part"]} == {0, 1}
    assert not any("split" in node.recipe for node in kinds["cost"])
    assert len(kinds["cost"]) == 3
    fixed = plan_suite(load(tmp_path, HEAD + DE + ED), store)
    assert {node.recipe.get("split", 0) for node in fixed.nodes.values()} == {0}


def test_a_pool_that_saw_other_repetitions_test_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="members of a shared pool were trained on test images"):
        load(tmp_path, RESPLIT.replace("members = 2", 'members = 2\nsharing = "shared"') + DE)


@pytest.mark.slow
def test_a_run_stores_each_repetitions_labels_and_ids_and_outside_rows_must_match_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, store = load(tmp_path, "seed = 3\n" + RESPLIT + DE), Store(tmp_path / "store")
    options = Options(store.root, tmp_path / "rows", tmp_path / "reports", jobs=0, device="cpu")
    done = run_suite(suite, options, lambda _: None)
    assert not done.failures
    with monkeypatch.context() as patch:
        patch.setattr("dbn_core.data.digits.DigitsSource.load", lambda *a: pytest.fail("the data were loaded again"))
        assert run_suite(suite, options, lambda _: None).outcome.made == []
    export_suite(done.plan, store, tmp_path / "rows", tmp_path / "all.zip")
    elsewhere = Store(tmp_path / "elsewhere")
    import_bundle(tmp_path / "all.zip", elsewhere, tmp_path / "other")
    assert all(elsewhere.intact("predictions", cell.predictions) for cell in plan_suite(suite, elsewhere).cells)
    by_repetition = {cell.repetition: store.arrays("predictions", cell.predictions) for cell in done.plan.cells}
    for repetition, arrays in by_repetition.items():
        data = suite.data.for_repetition(repetition, seed=3).load()
        assert data.test_ids is not None
        assert np.array_equal(arrays["test_labels"], data.test.labels)
        assert np.array_equal(arrays["test_ids"], data.test_ids)
    assert "draws its own stratified split" in (tmp_path / "reports" / "splits" / "report.md").read_text()

    given = {name: by_repetition[1][name] for name in ("test", "test_labels")}
    with pytest.raises(DataError, match="labels given"):
        add_external(done.plan, store, Entry("mine", 2, 0), given)
    add_external(done.plan, store, Entry("mine", 2, 1), given)
    with pytest.raises(SpecError, match=r"has 2 repetition\(s\), not 8"):
        add_external(done.plan, store, Entry("mine", 2, 7), given)
    assert run_suite(suite, options, lambda _: None).rows is not None
