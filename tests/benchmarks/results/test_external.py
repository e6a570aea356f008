"""Predictions that were made elsewhere, in a suite that they join; and two sets of them compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from scipy.stats import ttest_1samp
from sklearn.metrics import log_loss

from benchmarks.results.external.cells import load_external
from benchmarks.results.external.comparing import Comparison
from benchmarks.run import Options, plan_suite, run_suite
from benchmarks.statistics import Means, holm
from benchmarks.store.artefacts import Store
from benchmarks.store.storage import collect, verify_store
from benchmarks.suite.load import load_suite
from benchmarks.suite.schema import Suite
from dbn_core.tasks.classification import Classification
from tests.benchmarks.results.test_predictions import GOOD, LABELS, LOGITS, K, N, write
from tests.support import tiny
from tests.support.command import DbnBench, Said

TINY = tiny.HEAD.replace("repetitions = 1", "repetitions = 2").replace("members = 2", "members = 3")
TINY = TINY.replace("[recipe]\nepochs = 1", "[recipe]\nlr = 0.02\nepochs = 2")
# At this rate three are better than two, and the curve does not end at DE-2.
TINY += '[[methods]]\nuse = "de"\nsizes = [1, 2, 3]\n'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Suite]:
    """A suite that was run; its report is not rendered."""
    folder = tmp_path_factory.mktemp("joined")
    (folder / "tiny.toml").write_text(TINY)
    suite = load_suite(str(folder / "tiny.toml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.report.render", lambda *paths: [])
        options = Options(store=folder / "store", rows=folder / "rows", reports=folder / "reports", jobs=0)
        assert not run_suite(suite, options, lambda event: None).failures
    export(folder, suite)
    return folder, suite


def export(folder: Path, suite: Suite) -> None:
    """Write the suite's own DE-2 predictions as a user would."""
    store = Store(folder / "store")
    for cell in plan_suite(suite, store).cells:
        if cell.size == 2:
            arrays = store.arrays("predictions", cell.predictions)
            members = {name: arrays[name][:2] for name in ("test", "validation")}
            np.savez(folder / f"de2-{cell.repetition + 1}.npz", **arrays | members)


def summary(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rows" / "summary.csv").set_index(["label", "size"])


Joined = Callable[..., Said]


@pytest.fixture
def joined(finished: tuple[Path, Suite], dbn_bench: DbnBench) -> Joined:
    """A command on the suite."""
    folder, _ = finished
    places = [f"--{name}={folder / name}" for name in ("store", "rows", "reports")]

    def run(*words: object, render: bool = False) -> Said:
        with pytest.MonkeyPatch.context() as patch:
            if not render:
                patch.setattr("benchmarks.report.render", lambda *paths: [])
            chosen = places if words[0] == "score" else places[:1]
            return dbn_bench(*words, f"--suite={folder / 'tiny.toml'}", *chosen)

    return run


MEANS = ["acc_mean", "nll_mean", "brier_mean", "ece_mean", "cnll_mean", "cbrier_mean", "cece_mean", "temperature_mean"]


def test_predictions_join_a_suite_as_what_they_are(finished: tuple[Path, Suite], joined: Joined) -> None:
    folder, _ = finished
    before = summary(folder)
    for repetition in (1, 2):
        words = ("score", folder / f"de2-{repetition}.npz", "--label=A copy", "--size=2", "--repetition", repetition)
        code, out, _ = joined(*words, "--macs=5000", "--params=100", "--train-passes=640")
        assert code == 0
        rows = summary(folder)
        # However many repetitions it has, nothing of the others changes.
        pd.testing.assert_frame_equal(rows.loc[before.index], before, check_dtype=False)
        assert rows.loc["A copy", 2]["n"] == repetition
    copy, ensemble = rows.loc["A copy", 2], rows.loc["DE", 2]
    assert copy[MEANS].tolist() == pytest.approx(ensemble[MEANS].tolist(), rel=1e-4)
    assert ensemble["dee_raw"] == pytest.approx(2)
    assert copy["dee_raw"] == pytest.approx(2, abs=1e-3)
    assert copy["flops"] == 10_000
    assert copy["macs_rel"] == pytest.approx(5000 / ensemble["macs"] * 2, rel=1e-4)
    assert copy["student_passes"] == 640
    assert np.isnan(copy["train_seconds"])
    assert "Deep-ensemble equivalent, raw: 2.00" in out
    assert "Deep-ensemble equivalent, AUGRC: " in out

    code, out, _ = joined("compare", "A copy@2", "DE@1", "--json")
    assert code == 0
    found = json.loads(out)
    table = pd.read_csv(folder / "rows" / "comparisons.csv").query("label == 'A copy' and reference == 'DE-1'")
    for row in found["rows"]:
        for _, stored in table[table.metric == row["metric"]].iterrows():
            for name in ("difference", "low", "high", "p_value"):
                assert row[name] == pytest.approx(stored[name], rel=1e-4)
    assert {row["metric"] for row in found["rows"]} == set(table.metric) == {*Classification.tested_scores}
    assert found["repetitions"] == 2
    for row in found["rows"]:
        significant = row["p_holm"] <= 0.05
        name = {"acc": "accuracy", "nll": "NLL"}.get(row["metric"])
        better = (row["difference"] > 0) == (row["metric"] == "acc")
        if name and significant and better:
            assert name in found["verdict"].split("B (")[0]


def test_a_row_without_cost_or_validation_is_reported_replaced_and_removed(
    finished: tuple[Path, Suite], joined: Joined
) -> None:
    folder, suite = finished
    before = sorted(path.name for path in (folder / "store").glob("*/*/*") if "external" not in path.parts)
    with np.load(folder / "de2-1.npz") as arrays:
        np.savez(folder / "raw.npz", test=arrays["test"], labels=arrays["test_labels"])
        np.savez(folder / "worse.npz", test=0.5 * arrays["test"], labels=arrays["test_labels"])
    words = ("--label=Bare", "--size=4", "--note=A note.", "--values=logits")
    assert joined("score", folder / "worse.npz", *words)[0] == 0
    worse = summary(folder).loc["Bare", 4]
    code, out, _ = joined("score", folder / "raw.npz", *words, "--json", render=True)
    assert code == 0
    assert json.loads(out)["replaced"] is True
    assert "raw only" in json.loads(out)["notes"][-1]
    row = summary(folder).loc["Bare", 4]
    assert json.loads(out)["row"]["nll_mean"] == pytest.approx(row["nll_mean"], rel=1e-4)
    assert row["nll_mean"] != worse["nll_mean"]
    assert row[["cnll_mean", "temperature_mean", "dee_cal", "macs_rel", "train_seconds"]].isna().all()
    assert np.isfinite(row["dee_raw"])
    report = (folder / "reports" / "tiny" / "report.md").read_text()
    assert "predictions that were made elsewhere (raw.npz" in report.replace("\\", "")
    assert "their cost is not stated. A note." in report
    assert "Not drawn, since the cost is not known: Bare." in report
    assert len(list((folder / "reports" / "tiny" / "figures").glob("*.png"))) == 8

    # Predictions that were lost are a failure with a remedy, and harm nothing else.
    store = Store(folder / "store")
    (lost,) = (cell for cell in load_external(plan_suite(suite, store), store) if cell.label == "Bare")
    store.tensors_path("external", lost.predictions).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.report.render", lambda *paths: [])
        options = Options(store=folder / "store", rows=folder / "rows", reports=folder / "reports", only=())
        (failure,) = run_suite(suite, options, lambda event: None).failures
    assert "Bare size 4, repetition 1: its predictions are lost" in failure["reason"]

    code, out, _ = joined("score", "--remove=Bare")
    assert (code, "Removed 1 result(s)" in out) == (0, True)
    assert "Bare" not in summary(folder).index.get_level_values("label")
    after = sorted(path.name for path in (folder / "store").glob("*/*/*") if "external" not in path.parts)
    assert after == before
    assert joined("score", "--remove=Bare")[0] == 1


def test_cleaning_keeps_added_predictions_even_damaged_ones(finished: tuple[Path, Suite], joined: Joined) -> None:
    """They were made elsewhere: no run makes them again."""
    folder, _ = finished
    assert joined("score", folder / "de2-1.npz", "--label=Mine", "--size=2", "--macs=7")[0] == 0
    store = Store(folder / "store")
    [key] = [key for _, key in store.own("external") if store.known("external", key)["recipe"]["label"] == "Mine"]
    path, before = store.sidecar_path("external", key), store.sidecar_path("external", key).read_bytes()
    path.write_bytes(before.replace(b"Mine", b"Mind"))
    verify_store(store)
    assert len(store.damaged) == 1
    assert not [file for files in collect(store, []).values() for file in files if key in file.name]
    path.write_bytes(before)
    store.tensors_path("external", key).with_suffix(".safetensors.damaged").rename(store.tensors_path("external", key))
    assert joined("score", "--remove=Mine")[0] == 0


def test_what_does_not_fit_a_suite_is_refused(finished: tuple[Path, Suite], joined: Joined, tmp_path: Path) -> None:
    folder, _ = finished
    with np.load(folder / "de2-1.npz") as file:
        arrays = dict(file)

    def refused(sentence: str, *words: str, **changed: Any) -> None:
        np.savez(tmp_path / "p.npz", **arrays | changed)
        code, out, error = joined("score", tmp_path / "p.npz", "--size=2", *(words or ["--label=New"]))
        assert (code, out, error.count("\n")) == (1, "", 1)  # no score of what is refused
        assert sentence in error

    test, labels = arrays["test"], arrays["test_labels"]
    refused("of its own", "--label=DE")
    refused("choose another", "--label= ")
    refused("a number from 1", "--label=New", "--macs=0.5")
    refused("2 repetition(s), not 3", "--label=New", "--repetition=3")
    refused("differ from the suite's", test_labels=labels[::-1])
    refused("the suite has", test=test[:, :-1], test_labels=labels[:-1])
    wide = {name: np.concatenate([arrays[name], arrays[name][..., :1] - 9], -1) for name in ("test", "validation")}
    refused("11 classes, the suite has 10", **wide)
    code, _, error = joined("compare", "DE@1", "mine.npz")
    assert (code, "add it with `dbn-bench score mine.npz" in error) == (1, True)
    code, _, error = joined("compare", "DE@1", "ED@2")
    assert code == 1
    assert "no result 'ED@2' (did you mean 'DE@2'?)" in error


def test_compare_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dbn_bench: DbnBench) -> None:
    labels = tmp_path / "labels.npy"
    np.save(labels, LABELS)
    good = np.where(np.eye(K)[LABELS] > 0, 3.0, 0.0) + 0.1 * GOOD
    a, b = write(tmp_path / "a.npy", good[None]), write(tmp_path / "b.npy", LOGITS)
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = dbn_bench("compare", a, b, "--labels", labels)
    assert "…" not in out  # a narrow terminal cuts no digits off
    assert code == 0
    better = "NLL, accuracy, ECE, AUGRC, AURC and risk at 80 % coverage"
    assert f"is significantly better in {better}; the difference in smooth ECE is not significant (5 %, Holm)." in out
    assert "One repetition: it speaks of these two sets of predictions on other examples" in out
    code, out, _ = dbn_bench("compare", a, b, "--labels", labels, "--json")
    nll = {row["metric"]: row for row in json.loads(out)["rows"]}["nll"]
    theirs = log_loss(LABELS, softmax(LOGITS, -1).mean(0), labels=range(K))
    mine = log_loss(LABELS, softmax(good, -1), labels=range(K))
    assert (nll["a"], nll["b"], nll["difference"]) == pytest.approx((mine, theirs, mine - theirs))
    assert nll["low"] < nll["difference"] < nll["high"] < 0
    right = np.arange(N), LABELS
    gaps = np.log(softmax(LOGITS, -1).mean(0)[right]) - np.log(softmax(good, -1)[right])
    assert nll["p_value"] == pytest.approx(ttest_1samp(gaps, 0).pvalue, rel=1e-6)
    for names in (["nll", "acc", "ece"], ["augrc", "aurc", "risk80", "smece"]):  # corrected apart
        family = [row for row in json.loads(out)["rows"] if row["metric"] in names]
        assert [row["metric"] for row in family] == names
        corrected = holm(np.array([row["p_value"] for row in family]))
        assert [row["p_holm"] for row in family] == pytest.approx(corrected.tolist())
    _, out, _ = dbn_bench("compare", b, b, "--labels", labels)
    assert "The difference in NLL, accuracy, ECE, AUGRC, AURC, risk at 80 % coverage and smooth ECE is not" in out


def test_five_examples_prove_no_difference_and_infinity_is_none(tmp_path: Path, dbn_bench: DbnBench) -> None:
    right, labels = np.array([[0.9, 0.1]] * 5), np.zeros(5, int)
    for name, probs in (("a", right), ("b", right[:, ::-1])):
        np.savez(tmp_path / f"{name}.npz", p=probs, labels=labels)
    code, out, _ = dbn_bench("compare", tmp_path / "a.npz", tmp_path / "b.npz")
    assert code == 0
    assert "significantly better" not in out
    assert "the exact sign test" in out
    _, out, _ = dbn_bench("compare", tmp_path / "a.npz", tmp_path / "b.npz", "--json")
    rows = {row["metric"]: row for row in json.loads(out)["rows"]}
    assert (rows["acc"]["difference"], rows["acc"]["p_value"]) == (1, 0.0625)
    assert rows["acc"]["low"] < 0 < rows["acc"]["high"] == 1
    assert (rows["nll"]["p_value"], rows["nll"]["low"]) == (0.0625, None)


def test_an_infinite_difference_has_no_test() -> None:
    found = Comparison("a", "b", 9, 3, Classification())
    scores = np.random.default_rng(0).normal(size=(2, 3, 9))
    lost = scores.copy()
    lost[0, 0, 0] = np.inf
    found.fill(
        {name: (*each, Means((each[0] - each[1])[None]).test()) for name, each in (("nll", lost), ("acc", scores))}
    )
    assert "The difference in NLL is not finite and has no test" in found.verdict
    assert "one repetition" not in found.verdict
