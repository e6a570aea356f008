"""A cluster that outlives a run, and what is edited meanwhile: no worker stores what it knew from the run before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from dbn_core.methods.registry import load_plugin
from tests.benchmarks.store.test_changed import CONSTANT, PLUGIN, folder_suite, go, save_images
from tests.support.tiny import DE, HEAD


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    from dask.distributed import LocalCluster

    environment = {"OMP_NUM_THREADS": "1"}
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, env=environment) as started:
        yield started.scheduler_address.replace("tcp://", "dask://")


def stored_probability(folder: Path, result: Any) -> float:
    cell = next(cell for cell in result.plan.cells if cell.label == "Constant")
    return float(np.exp(Store(folder / "store").arrays("predictions", cell.predictions)["test"][0, 0, 3]))


@pytest.mark.usefixtures("clean_registry")
def test_a_worker_imports_an_edited_plugin_or_refuses_another_one(tmp_path: Path, cluster: str) -> None:
    file = tmp_path / "mine.py"
    (tmp_path / "edited.toml").write_text(HEAD + DE + CONSTANT)
    options = {"executor": cluster, "plugins": [str(file)]}
    for version in (1, 2):
        text = PLUGIN.replace("VALUE", str(version)).replace("    title", f"    version = {version}\n    title")
        file.write_text(text)
        load_plugin(file)
        result = go(tmp_path, load_suite(str(tmp_path / "edited.toml")), **options)
        assert not result.failures
        assert stored_probability(tmp_path, result) == pytest.approx(np.e**version / (np.e**version + 9), abs=1e-6)
    file.write_text(text.replace("version = 2", "version = 3"))
    load_plugin(file)
    suite = load_suite(str(tmp_path / "edited.toml"))
    file.write_text(text.replace("version = 2", "version = 4"))  # after this process has read it
    reasons = {failure["cell"]: failure["reason"] for failure in go(tmp_path, suite, **options).failures}
    assert "is not the one that the run began with" in reasons["Constant size 1, repetition 1"]


def test_a_worker_loads_data_that_changed(tmp_path: Path, cluster: str) -> None:
    save_images(tmp_path / "A", 10)
    assert not go(tmp_path, folder_suite(tmp_path, "A"), executor=cluster).failures
    for split, first in (("test", 7), ("train", 30)):
        for index in range(first, first + 3):
            for label in ("ant", "bee"):
                (tmp_path / "A" / split / label / f"{index}.bmp").unlink()
    result = go(tmp_path, folder_suite(tmp_path, "A"), executor=cluster)
    assert not result.failures
    arrays = Store(tmp_path / "store").arrays("predictions", result.plan.cells[0].predictions)
    assert arrays["test"].shape[1] == 14
