"""From a suite file to a report, with a suite small enough for every test run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.run import Options, RunResult, plan_suite, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.suite.schema import Suite
from benchmarks.work.planning import suite_status
from benchmarks.work.schedule import Event
from dbn_core.tasks.classification import Classification
from tests.support import tiny
from tests.support.command import DbnBench

Finished = tuple[Path, RunResult, pd.DataFrame]
TINY = tiny.HEAD.replace("repetitions = 1", "repetitions = 2").replace("members = 2", "members = 3")
TINY += '[[methods]]\nuse = "de"\nsizes = [1, 2, 3]\n' + tiny.ED
BRIDGES = """
[[methods]]
use = "dbn[split_at=block2,score_network=mini]"
sizes = [3]
repetitions = 1
[[methods]]
use = "bn[split_at=block2]"
sizes = [2]
repetitions = 1
"""


def suite(folder: Path, text: str = TINY) -> Suite:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.toml").write_text(text)
    return load_suite(str(folder / "tiny.toml"))


def run(folder: Path, text: str = TINY, report: Callable[[str | Event], None] = lambda event: None) -> RunResult:
    options = Options(folder / "store", folder / "rows", folder / "reports", jobs=0, device="cpu")
    return run_suite(suite(folder, text), options, report)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult, pd.DataFrame]:
    """A folder in which the suite was run, what came of it, and its scores."""
    folder = tmp_path_factory.mktemp("tiny")
    return folder, run(folder), scores(folder)


def scores(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rows" / "rows.csv").sort_values(["method", "size", "repetition", "metric"])


def test_a_run_writes_rows_and_report(finished: Finished) -> None:
    folder, result, _ = finished
    assert not result.failures
    summary = pd.read_csv(folder / "rows" / "summary.csv")
    assert list(zip(summary.family, summary["size"], strict=True)) == [("de", 1), ("de", 2), ("de", 3), ("ed", 2)]
    assert (summary.n == 2).all()
    de = summary[summary.family == "de"]
    assert de.macs_rel.tolist() == [1.0, 2.0, 3.0]
    assert de.params_rel.tolist() == [1.0, 2.0, 3.0]
    assert de.latency_b1_ratio.iloc[0] == 1.0
    assert summary.acc_mean.between(0, 1).all()
    assert summary[summary.family == "ed"].macs_rel.tolist() == [1.0]
    assert summary[summary.family == "ed"][["ece_debiased_mean", "dee_raw_fit", "dee_cal_fit"]].notna().all(axis=None)
    comparisons = pd.read_csv(folder / "rows" / "comparisons.csv")
    assert set(comparisons.metric) == {*Classification.tested_scores}
    assert (comparisons.p_holm >= comparisons.p_value).all()
    assert summary[summary.family == "ed"][["augrc_low", "smece_high", "lac_size_mean"]].notna().all(axis=None)
    assert summary.mutual_information_mean.notna().tolist() == [False, True, True, False]  # of several members
    risks = pd.read_csv(folder / "rows" / "risk_coverage.csv").pivot(
        index=["family", "size"], columns="coverage", values="risk"
    )
    by_method = summary.set_index(["family", "size"]).loc[risks.index]
    assert risks[1.0].tolist() == pytest.approx((1 - by_method.acc_mean).tolist(), abs=1e-5)
    assert risks[0.8].tolist() == pytest.approx(by_method.risk80_mean.tolist(), abs=1e-5)
    assert any("other pools" in line for line in json.loads((folder / "rows" / "meta.json").read_text())["statistics"])
    # One student of two teachers: an epoch of whole batches of 144 images, each seen by both.
    passes = (144 // 32) * 32
    assert summary[summary.family == "ed"].student_passes.tolist() == [passes]
    assert summary[summary.family == "ed"].teacher_passes.tolist() == [2 * passes]
    assert (folder / "reports" / "tiny" / "report.html").stat().st_size > 10_000


def test_a_second_run_makes_nothing(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _, before = finished
    monkeypatch.setattr(
        "benchmarks.work.worker.ArtefactBuilder.run", lambda *a: pytest.fail("something was made again")
    )
    monkeypatch.setattr("dbn_core.data.digits.DigitsSource.load", lambda *a: pytest.fail("the data were loaded again"))
    assert not run(folder).outcome.made
    pd.testing.assert_frame_equal(scores(folder), before)


def test_a_new_method_computes_only_what_is_new_and_tells_of_it(finished: Finished) -> None:
    folder, *_ = finished
    events: list[Event | str] = []
    result = run(folder, TINY + BRIDGES, events.append)
    assert not result.failures
    assert {node.kind for node in result.outcome.made} == {"part", "predictions", "cost"}
    parts = sorted(node.recipe["part"] for node in result.outcome.made if node.kind == "part")
    assert parts == sorted(["bridge-1", "onestep-1", "curve-1", "bridge-1"])
    summary = pd.read_csv(folder / "rows" / "summary.csv")
    assert {"dbn", "bn"} <= set(summary.family)
    assert summary[summary.family == "dbn"].dee_raw.notna().all()
    nodes = [event for event in events if isinstance(event, Event)]
    assert nodes[-1].done == nodes[-1].total == len([e for e in nodes if e.what == "done"])
    assert [e.node.key for e in nodes if e.what == "start"] == [e.node.key for e in nodes if e.what == "done"]


def test_the_order_of_a_suite_does_not_matter(tmp_path: Path) -> None:
    head, de, ed = TINY.split("[[methods]]")
    turned = head + "[[methods]]" + ed + "[[methods]]" + de.replace("[1, 2, 3]", "[3, 1, 2]")
    store = Store(tmp_path)
    nodes, other = (plan_suite(suite(tmp_path, text), store).nodes for text in (TINY, turned))
    assert set(nodes) == set(other)


def test_a_damaged_artefact_is_rebuilt(finished: Finished) -> None:
    folder, _, before = finished
    store = Store(folder / "store")
    cell = plan_suite(suite(folder), store).cells[0]
    path = store.tensors_path("predictions", cell.predictions)
    path.write_bytes(path.read_bytes()[:-1] + b"\0\1")
    result = run(folder)
    assert [node.kind for node in result.outcome.made] == ["predictions"]
    assert not result.failures
    pd.testing.assert_frame_equal(scores(folder), before)


def test_status_counts(finished: Finished, tmp_path: Path) -> None:
    folder, *_ = finished
    chosen = suite(folder)
    counts = suite_status(plan_suite(chosen, Store(folder / "store")), Store(folder / "store"))
    assert counts["member"] == (6, 6)
    assert counts["cell"] == (8, 8)
    empty = Store(tmp_path)
    assert suite_status(plan_suite(chosen, empty), empty)["cell"] == (0, 8)


def test_a_shared_pool_draws_another_source_for_each_repetition(tmp_path: Path) -> None:
    chosen = suite(tmp_path, TINY.replace("members = 3", 'members = 3\nsharing = "shared"'))
    plan = plan_suite(chosen, Store(tmp_path / "store"))
    assert sum(node.kind == "member" for node in plan.nodes.values()) == 3
    assert len({cell.members[:1] for cell in plan.cells if cell.label == "DE" and cell.size == 1}) == 2


def test_a_diverged_training_keeps_the_rest(finished: Finished) -> None:
    folder, *_ = finished
    result = run(folder, TINY.replace('use = "ed"', 'use = "ed[lr_scale=1e30]"'))
    reasons = [failure["reason"] for failure in result.failures]
    assert any("learning rate" in reason for reason in reasons)
    summary = pd.read_csv(folder / "rows" / "summary.csv")
    assert set(summary.family) == {"de"}
    assert "lower its learning rate" in (folder / "reports" / "tiny" / "report.md").read_text()
    store = Store(folder / "store")
    assert not any(store.has("part", key) for key in result.outcome.failures), "a failure is no result"


OUTPUTS = ("torch.zeros(len(images), 3)", "self.network(images)", "self.network(images).log_softmax(-1) * float('nan')")
PLUGIN = """
import torch
from dbn_core import Method, register

class Predictor(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network
    def forward(self, images):
        return OUTPUT

@register("NAME")
class Bad(Method):
    \"\"\"Breaks the contract.\"\"\"
    def members(self, size): return (0,)
    def predictor(self, size, context): return Predictor(context.members[0])
"""


@pytest.mark.usefixtures("clean_registry")
def test_a_bad_plugin_is_one_sentence_and_an_exit_code(finished: Finished, tmp_path: Path, dbn_bench: DbnBench) -> None:
    folder, *_ = finished
    plugins, entries = [], ""
    for index, output in enumerate(OUTPUTS):
        (tmp_path / f"bad{index}.py").write_text(PLUGIN.replace("OUTPUT", output).replace("NAME", f"bad{index}"))
        plugins.append(f"--plugin={tmp_path / f'bad{index}.py'}")
        entries += f'[[methods]]\nuse = "bad{index}"\nsizes = [1]\nrepetitions = 1\n'
    suite(folder, TINY + entries)
    places = [f"--{name}={folder / name}" for name in ("store", "rows", "reports")]
    output = dbn_bench("run", folder / "tiny.toml", *places, *plugins, "--jobs=0")
    assert output.code == 1
    assert {"de", "ed"} <= set(pd.read_csv(folder / "rows" / "summary.csv").family)
    assert all(f"Method 'bad{index}'" in output.err for index in range(len(OUTPUTS)))
    checked = dbn_bench("check", "bad1")
    assert (checked.code, "FAIL  returns normalised log-probabilities" in checked.out) == (1, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "digit"], "did you mean 'digits'"),
        (["run", "smoke", "--plugin", "nowhere.py"], "nowhere.py"),
        (["run", "smoke", "--device", "tpu"], "tpu"),
        (["report", "nosuch"], "no result rows"),
        (["show", "dbn[stesp=1]"], "steps"),
        (["status", "smoke", "--set", "data={source='parquet',root='/nowhere'}"], "/nowhere"),
    ],
)
def test_bad_commands_are_one_sentence(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, dbn_bench: DbnBench, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = dbn_bench(*words)
    assert code == 1
    assert error.startswith("Error: ")
    assert sentence in error
