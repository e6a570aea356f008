"""Suites of tables: forests, splits and tables made elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.report.figures.style import in_series
from benchmarks.report.load import read_results
from benchmarks.report.page.explorer import chart_data
from benchmarks.run import run_suite
from benchmarks.suite.load import load_suite
from benchmarks.work.make import Options
from dbn_core.errors import DataError
from dbn_core.generative.tables import TableSource
from dbn_core.generative.tabular.forest import ForestDiffusion, ForestOptions
from dbn_core.generative.tasks.tabular import Tabular, table_of

CPU = torch.device("cpu")


def options_in(folder: Path) -> Options:
    return Options(folder / "store", folder / "rows", folder / "reports", executor="inline", jobs=0)


class Given(nn.Module):
    def __init__(self, tables: torch.Tensor) -> None:
        super().__init__()
        self.tables = iter(tables)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return next(self.tables)[:, :, None, None]


def test_tables_made_elsewhere_are_scored_as_those_of_a_method() -> None:
    data, task = TableSource(name="iris").for_repetition(1).load(), Tabular(sets=1)
    rows = data.train.images.flatten(1)
    tables = torch.stack([rows.roll(1, 0), rows.flip(0)])
    tables[0, :, 0] += 0.5
    stored = task.predict(Given(tables), data, CPU, torch.Generator().manual_seed(0), "given")
    again = task.accept({"tables": tables.numpy()}, data)
    assert set(again) == set(stored)
    assert all(torch.equal(again[name], stored[name]) for name in stored)
    assert task.score({name: tensor.numpy() for name, tensor in again.items()}).split["w1_train"] > 0
    tables[1, 3, -1] = 7
    with pytest.raises(DataError, match=r"column 'class': codes must be 0\.\.2"):
        task.accept({"tables": tables.numpy()}, data)


def test_tables_are_cut_anew_and_forests_survive_storing() -> None:
    source = TableSource(name="iris")
    first, second = (source.for_repetition(r).load() for r in range(2))
    assert not torch.equal(first.test_ids, second.test_ids)
    train = table_of(first, "train")
    assert len(train) == 120
    assert np.bincount(table_of(first, "test").target.astype(int)).tolist() == [10, 10, 10]
    options = ForestOptions(trees=4, levels=3, duplicates=2)
    model = ForestDiffusion.fit(train, options, seed=0)
    again = ForestDiffusion.from_state(train, options, model.state_dict())
    x = torch.randn(7, model.coding.width, generator=torch.Generator().manual_seed(1))
    for level in range(3):
        assert torch.equal(model.noise(level, x), again.noise(level, x))
        assert torch.equal(model.first(2).noise(level, x), again.first(2).noise(level, x))


@pytest.mark.slow
def test_a_suite_of_tables_runs_and_rules_share_their_forests(tmp_path: Path) -> None:
    suite = load_suite("iris-forest", {"repetitions": 2, "task.sets": 1})
    small = {"trees": 4, "levels": 4, "duplicates": 2}
    entries = [e for e in suite.methods if e.use == "forest" or e.label in ("Dominant", "Mixture of experts")]
    entries = [e.model_copy(update={"options": {**e.options, **small}, "sizes": (1, 4)}) for e in entries]
    suite = suite.model_copy(update={"methods": tuple(entries)})
    options = options_in(tmp_path)
    result = run_suite(suite, options, lambda event: None)
    assert not result.failures
    assert sum(node.kind == "part" for node in result.plan.nodes.values()) == 2  # one a split
    summary = pd.read_csv(tmp_path / "rows" / "summary.csv").set_index(["label", "size"])
    assert summary.loc[("Forest", 4), "noise_mse_mean"] < summary.loc[("Forest", 1), "noise_mse_mean"]
    assert summary.loc[("Dominant", 1), "w1_test_mean"] == pytest.approx(summary.loc[("Forest", 1), "w1_test_mean"])
    assert summary["cost_stated"].all()
    assert summary.loc[("Mixture of experts", 4), "macs_rel"] == 1
    assert (tmp_path / "reports" / "iris-forest" / "figures" / "rows.png").is_file()
    shown = {
        (row["label"], row["size"]): row["w1_test"] for row in chart_data(in_series(read_results(tmp_path / "rows")))
    }
    assert shown == pytest.approx(summary["w1_test_mean"].to_dict(), rel=1e-5)
