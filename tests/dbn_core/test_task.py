"""The seam between suites and what they are about: a whole new task in one file, through the whole harness."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import norm, ttest_rel

from benchmarks.cli import main
from benchmarks.contract.check import check_method
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.suite.schema import Suite
from benchmarks.work.planning import plan_suite
from dbn_core.errors import SpecError
from dbn_core.methods.registry import load_plugin, parse_method
from dbn_core.tasks.base import Task, task_named

PLUGIN = Path(__file__).parents[1] / "support/regression_task.py"
load_plugin(PLUGIN)
regression = sys.modules["dbn_bench_plugin_regression_task"]

SUITE = """
title = "Numbers of digits"
task = { name = "regression", floor = 0.1 }
repetitions = 3
[data]
source = "digits"
split = "repetition"
[network]
hidden = 8
[pool]
members = 3
[recipe]
epochs = 3
batch_size = 64
optimizer = "adamw"
lr = 0.01
crop_pad = 0
flip = false
[students]
epochs = 2
[latency]
repeats = 3
batch_repeats = 3
batch = 4
[[methods]]
use = "gaussian-ensemble"
sizes = [1, 2, 3]
[[methods]]
use = "mean-student"
sizes = [3]
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("regression") / "numbers.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def finished(suite: Path) -> Path:
    """The suite's folder, after a run."""
    with pytest.MonkeyPatch.context() as patch:
        assert command(patch, "run", str(suite), *places(suite.parent), f"--plugin={PLUGIN}", "--jobs=0") == 0
    return suite.parent


def places(folder: Path) -> list[str]:
    return [f"--{name}={folder / name}" for name in ("store", "rows", "reports")]


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dbn-bench", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_task_in_one_file_runs_through_the_whole_harness(
    finished: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished
    summary = pd.read_csv(folder / "rows" / "summary.csv").set_index(["family", "size"])
    student = summary.loc["mean-student", 3]
    assert {"nll_mean", "crps_low", "rmse_high", "equivalent", "equivalent_high", "macs_rel"} <= set(summary)
    assert student["macs_rel"] == 1
    assert student["n"] == 3
    assert (summary["equivalent"].loc["gaussian-ensemble"] == [1, 2, 3]).all()
    comparisons = pd.read_csv(folder / "rows" / "comparisons.csv")
    assert set(comparisons["reference"]) == {"GE-1", "GE-3"}
    assert set(comparisons["metric"]) == {"nll", "crps"}
    stored = json.loads((folder / "rows" / "meta.json").read_text())["task"]
    assert stored["scores"]["crps"]["title"] == "CRPS"
    page = (folder / "reports" / "numbers" / "report.md").read_text()
    assert "| GE" in page
    assert "RMSE ↓" in page
    assert "continuous ranked probability score" in page
    assert "deep ensemble" not in page.partition("## How it was measured")[0]
    before = page, (folder / "reports" / "numbers" / "figures" / "scores_vs_cost.png").read_bytes()
    assert command(monkeypatch, "report", str(suite), *places(folder)[1:]) == 0
    after = (folder / "reports" / "numbers" / "report.md").read_text()
    assert before == (after, (folder / "reports" / "numbers" / "figures" / "scores_vs_cost.png").read_bytes())


def test_stored_results_are_compared_over_their_repetitions(
    finished: Path, suite: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "Student@3", "GE@3", f"--suite={suite}", f"--plugin={PLUGIN}", places(finished)[0]]
    assert command(monkeypatch, *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    rows = pd.read_csv(finished / "rows" / "rows.csv")
    assert [row["metric"] for row in found["rows"]] == ["nll", "crps"]
    for row in found["rows"]:  # each repetition has a test split of its own, so it counts as one observation
        values = rows[(rows["metric"] == row["metric"]) & (rows["size"] == 3)].pivot(
            index="repetition", columns="label", values="value"
        )
        assert row["p_value"] == pytest.approx(ttest_rel(values["Student"], values["GE"]).pvalue, rel=1e-3)
    assert command(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "Paired Student's t over 3 repetitions; p corrected by Holm for the number of scores." in said
    assert "CRPS" in said

    assert command(monkeypatch, *words, "--set=repetitions=1") == 0
    said = capsys.readouterr().out
    assert "examples. One repetition: it speaks of these two sets of predictions on other examples" in said
    assert "–" not in said


def test_predictions_made_elsewhere_join_a_suite_of_the_task(
    finished: Path, suite: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.report.render", lambda *paths: [])
    store, before = Store(finished / "store"), (finished / "rows" / "summary.csv").read_text()
    words = [f"--suite={suite}", f"--plugin={PLUGIN}", *places(finished)]
    for cell in plan_suite(load_suite(str(suite)), store).cells:
        if (cell.method.name, cell.size) == ("gaussian-ensemble", 2):
            terms = store.arrays("predictions", cell.predictions)["test"][:2]
            np.savez(finished / f"mine-{cell.repetition + 1}.npz", test=terms)
    for repetition in (1, 2, 3):
        file = str(finished / f"mine-{repetition}.npz")
        said = ["--label=Mine", "--size=3", f"--repetition={repetition}", "--params=1e3"]
        assert command(monkeypatch, "score", file, *words, *said) == 0
    assert "Equivalent members of GE: 2.00 [" in capsys.readouterr().out
    summary = pd.read_csv(finished / "rows" / "summary.csv").set_index(["label", "size"])
    own, mine = (summary.loc[key, ["n", "nll_mean", "nll_high", "crps_mean"]] for key in (("GE", 2), ("Mine", 3)))
    assert mine.tolist() == own.tolist()
    assert command(monkeypatch, "score", str(finished / "mine-1.npz"), *words, "--labels=y.npy") == 1
    assert "--labels is for predicted classes" in capsys.readouterr().err
    assert command(monkeypatch, "score", "--remove=Mine", *words) == 0
    assert (finished / "rows" / "summary.csv").read_text() == before
    with pytest.raises(SpecError, match="accepts no predictions from a file"):
        Task.accept(load_suite(str(suite)).task, {}, None)


def test_the_contract_is_checked_in_the_world_of_the_task() -> None:
    assert {r.outcome for r in check_method(parse_method("gaussian-ensemble"))} == {"ok"}


def test_the_score_of_the_mixture_is_its_integral() -> None:
    rng = np.random.default_rng(0)
    mean, sd, target = rng.normal(size=(3, 2)), rng.uniform(0.3, 2, (3, 2)), rng.normal(size=2)
    for n in range(2):

        def squared_gap(y: float, n: int = n) -> float:
            return float((norm.cdf(y, mean[:, n], sd[:, n]).mean() - (y > target[n])) ** 2)

        ends = (-30, float(target[n]), 30)
        expected = sum(quad(squared_gap, *pair, limit=200)[0] for pair in pairwise(ends))
        assert regression.crps(mean, sd, target)[n] == pytest.approx(expected, abs=1e-6)


def test_a_suite_holds_its_task_with_its_options(suite: Path) -> None:
    made = load_suite(str(suite))
    assert made.task.floor == 0.1
    assert Suite.model_validate_json(made.model_dump_json()) == made
    assert load_suite("smoke").task == task_named("classification")()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": "regresion"}, "Unknown task 'regresion' (did you mean 'regression'?)"),
        ({"task": {"name": "regression", "floorr": 1}}, "floorr"),
        ({"task": {"floor": 1.0}}, "a table [task] needs a name"),
        ({"recipe.keep": "best_nll"}, "has no validation between epochs"),
        ({"students.teachers": "views(2)"}, "run online"),
        ({"network": {"name": "resnet8"}}, "unknown key 'name' in [network]"),
    ],
)
def test_what_a_task_cannot_have_is_one_sentence(suite: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_suite(str(suite), changes)
    assert sentence in str(caught.value)


def test_methods_of_another_task_are_refused(suite: Path) -> None:
    made = load_suite("smoke")
    stranger = made.model_copy(update={"methods": load_suite(str(suite)).methods})
    with pytest.raises(SpecError, match="'gaussian-ensemble' is a method of the task regression, the suite's task"):
        stranger.entries()
