"""Predictions from anywhere: files against independent scores, bad files, and a suite that they join."""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from netcal.metrics import ECE
from scipy.special import log_softmax, softmax
from scipy.stats import ttest_1samp
from sklearn.metrics import log_loss

from benchmarks.cli import main
from benchmarks.results.external.cells import load_external
from benchmarks.results.external.comparing import Comparison
from benchmarks.results.external.predictions import check_classes, load_predictions
from benchmarks.run import Options, plan_suite, run_suite
from benchmarks.statistics import Means
from benchmarks.store.artefacts import Store
from benchmarks.store.storage import collect, verify_store
from benchmarks.suite.load import load_suite
from benchmarks.suite.schema import Suite
from dbn_core.errors import DataError
from dbn_core.metrics.scores import LOG_FLOOR
from dbn_core.tasks.classification import Classification, score_arrays

N, K = 60, 4
RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.normal(size=(3, N, K))
LABELS = np.where(RNG.random(N) < 0.6, LOGITS.mean(0).argmax(1), RNG.integers(0, K, N))
KINDS: dict[str, Callable[[Any], Any]] = {
    "logits": lambda x: x,
    "probabilities": lambda x: softmax(x, -1),
    "log-probabilities": lambda x: log_softmax(x, -1),
}


def write(path: Path, block: np.ndarray) -> Path:
    """Write [M, N, K] as the suffix asks."""
    if path.suffix == ".npy":
        np.save(path, block[0] if len(block) == 1 else block)
    elif path.suffix == ".npz":
        np.savez(path, block)
    else:
        frame = pd.DataFrame(block.reshape(-1, K), columns=[f"class {k}" for k in range(K)])
        frame.insert(1, "label", np.tile(LABELS, len(block)))
        if len(block) > 1:
            frame["member"] = np.repeat([f"m{m}" for m in range(len(block))][::-1], N)
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    np.save(tmp_path / "labels.npy", LABELS)
    return tmp_path / "labels.npy"


# ------------------------------------------------------------------------------------------------- files and scores


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["npz", "npy", "csv", "parquet"])
def test_every_file_gives_the_scores_that_others_compute(
    suffix: str, kind: str, members: int, tmp_path: Path, labels: Path
) -> None:
    block = KINDS[kind](LOGITS[:members])
    path = write(tmp_path / f"p.{suffix}", block)
    found = load_predictions(path, None if suffix in ("csv", "parquet") else labels)
    assert f": {kind}, " in found.notes[0]
    assert found.arrays["test"].shape == (members, N, K)
    scores = score_arrays(found.arrays)
    probs = softmax(LOGITS[:members], -1).mean(0)
    assert scores.examples["nll"].mean() == pytest.approx(log_loss(LABELS, probs, labels=range(K)), abs=1e-9)
    assert scores.examples["acc"].mean() == np.mean(probs.argmax(1) == LABELS)
    assert scores.examples["brier"].mean() == pytest.approx(np.square(probs - np.eye(K)[LABELS]).sum(1).mean())
    hit = (probs.argmax(1) == LABELS).astype(int)
    assert scores.examples["ece"].mean() == pytest.approx(ECE(15).measure(probs.max(1), hit), abs=1e-9)
    assert "cnll" not in scores.examples


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv", "parquet", "txt"])
def test_labels_come_in_every_form(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"y.{suffix}"
    {
        "npy": lambda: np.save(path, LABELS.astype(np.float32)),
        "npz": lambda: np.savez(path, labels=LABELS, other=LABELS + 1),
        "csv": lambda: pd.DataFrame({"id": range(N), "label": LABELS}).to_csv(path, index=False),
        "parquet": lambda: pd.DataFrame({"y": LABELS}).to_parquet(path),
        "txt": lambda: path.write_text("\n".join(map(str, LABELS))),
    }[suffix]()
    found = load_predictions(write(tmp_path / "p.npy", LOGITS), path)
    np.testing.assert_array_equal(found.arrays["test_labels"], LABELS)


def test_members_one_after_the_other_are_told_by_the_labels(tmp_path: Path, labels: Path) -> None:
    np.save(tmp_path / "p.npy", LOGITS.reshape(-1, K))
    found = load_predictions(tmp_path / "p.npy", labels)
    assert np.allclose(found.arrays["test"], log_softmax(LOGITS, -1), atol=1e-5)
    assert "3 members, one after the other" in found.notes[0]


@pytest.mark.parametrize("first", [0, 1])  # as pandas and as R count rows
def test_a_column_that_counts_rows_is_no_class(first: int, tmp_path: Path, labels: Path) -> None:
    pd.DataFrame(LOGITS[0], index=range(first, N + first)).to_csv(tmp_path / "p.csv")
    assert load_predictions(tmp_path / "p.csv", labels).arrays["test"].shape == (1, N, K)


def test_an_npz_may_hold_everything(tmp_path: Path) -> None:
    half = N // 2
    path = tmp_path / "all.npz"
    arrays = {"validation": LOGITS[:, :half], "validation_labels": LABELS[:half]}
    np.savez(path, probs=LOGITS[:, half:], other=LOGITS, labels=LABELS[half:], **arrays)
    with pytest.raises(DataError, match="--key"):
        load_predictions(path)
    scores = score_arrays(load_predictions(path, key="probs").arrays)
    # The temperature is the best on validation, so that no other has a lower NLL there.
    best = scores.split["temperature"]
    fitted = softmax(LOGITS[:, :half], -1).mean(0)
    nll = [log_loss(LABELS[:half], softmax(np.log(fitted) / t, -1), labels=range(K)) for t in (best, 0.9, 1.1)]
    assert nll[0] <= min(log_loss(LABELS[:half], fitted, labels=range(K)), *nll) + 1e-9
    probs = softmax(np.log(softmax(LOGITS[:, half:], -1).mean(0)) / best, -1)
    assert scores.examples["cnll"].mean() == pytest.approx(log_loss(LABELS[half:], probs, labels=range(K)))


def test_numbered_columns_are_put_in_order(tmp_path: Path, labels: Path) -> None:
    path = tmp_path / "p.csv"
    pd.DataFrame(LOGITS[0][:, ::-1], columns=[3, 2, 1, 0]).to_csv(path, index=False)
    np.testing.assert_allclose(load_predictions(path, labels).arrays["test"][0], log_softmax(LOGITS[0], -1))


def test_what_rounding_did_is_forgiven(tmp_path: Path, labels: Path) -> None:
    rounded = softmax(LOGITS, -1).round(3)
    found = load_predictions(write(tmp_path / "p.csv", rounded))
    assert ": probabilities" in found.notes[0]
    np.testing.assert_allclose(np.exp(found.arrays["test"]).sum(-1), 1)
    half = log_softmax(LOGITS, -1).astype(np.float16)
    assert ": log-probabilities" in load_predictions(write(tmp_path / "p.npy", half), labels).notes[0]


@pytest.mark.parametrize("kind", ["probabilities", "log-probabilities"])
def test_a_probability_of_zero_has_a_finite_score(kind: str, tmp_path: Path, labels: Path) -> None:
    probs = np.zeros((1, N, K))
    probs[0, np.arange(N), LABELS] = probs[0, np.arange(N), (LABELS + 1) % K] = 0.5
    probs[0, 0, [LABELS[0], (LABELS[0] + 2) % K]] = 0, 0.5
    with np.errstate(divide="ignore"):
        block = probs if kind == "probabilities" else np.log(probs)
    scores = score_arrays(load_predictions(write(tmp_path / "p.npy", block), labels).arrays)
    assert scores.examples["nll"][0] == pytest.approx(-LOG_FLOOR)
    assert scores.examples["nll"][1:] == pytest.approx(np.log(2))
    assert (scores.zeros, scores.zero_labels) == (2 * N, 1)


def test_a_said_kind_is_believed(tmp_path: Path, labels: Path) -> None:
    probs = softmax(LOGITS, -1)
    found = load_predictions(write(tmp_path / "p.npy", probs), labels, values="logits")
    np.testing.assert_allclose(found.arrays["test"], log_softmax(probs, -1))
    negative = write(tmp_path / "n.npy", -5 - np.abs(LOGITS))
    assert ": logits" in load_predictions(negative, labels).notes[0]


@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_scoring_needs_three_times_the_file_in_memory(
    kind: str, members: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbn_core.metrics.scores._BLOCK", 1 << 12)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    rng = np.random.default_rng(0)
    blocks = {
        split: KINDS[kind](rng.normal(size=(members, count, 500))).astype(np.float32)
        for split, count in (("test", 1600), ("validation", 400))
    }
    labels = {f"{name}_labels": rng.integers(0, 500, block.shape[1]) for name, block in blocks.items()}
    np.savez(tmp_path / "p.npz", **blocks, **labels)
    size = sum(block.nbytes for block in blocks.values())
    del blocks
    score_arrays(load_predictions(tmp_path / "p.npz").arrays)  # what is imported is no part of it
    tracemalloc.start()
    try:
        scores = score_arrays(load_predictions(tmp_path / "p.npz").arrays)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "cnll" in scores
    assert peak < 3.2 * size


def test_a_table_of_many_classes_is_read_in_time(tmp_path: Path) -> None:
    path, classes = tmp_path / "p.csv", [f"c{k}" for k in range(20_000)]
    pd.DataFrame(np.full((2, len(classes)), 1 / len(classes)), columns=classes).assign(label=0).to_csv(
        path, index=False
    )
    started = time.process_time()
    assert load_predictions(path).classes == tuple(classes)
    assert time.process_time() - started < 15  # a quadratic reader needs minutes


# ------------------------------------------------------------------------------------------------------- bad files


def _arrays(**arrays: Any) -> Callable[[Path], object]:
    return lambda path: np.savez(path, **arrays)


def _array(array: Any) -> Callable[[Path], object]:
    return lambda path: np.save(path, array, allow_pickle=True)


def _table(**columns: Any) -> Callable[[Path], object]:
    return lambda path: pd.DataFrame(columns).to_csv(path, index=False)


NAN = np.where(np.arange(N * K).reshape(N, K) == 5, np.nan, LOGITS[0])
GOOD = LOGITS[0]
BAD_PREDICTIONS = [
    ("p.npy", None, "does not exist"),
    ("p.pkl", lambda path: path.write_bytes(b"x"), "no known kind"),
    ("p.npy", lambda path: path.write_bytes(b""), "no readable .npy"),
    ("p.npy", lambda path: path.write_bytes(b"hello there"), "plain numbers"),
    ("p.npz", lambda path: path.write_bytes(b"PK\x03\x04 broken"), "no readable .npz"),
    ("p.npy", _array(np.array([{}, {}], object)), "plain numbers"),
    ("p.npy", _array(GOOD.astype(str)), "type <U"),
    ("p.npy", _array(GOOD[0]), "shape [4]"),
    ("p.npy", _array(GOOD[:0]), "shape [1, 0, 4]"),
    ("p.npy", _array(GOOD[:, :1]), "shape [1, 60, 1]"),
    ("p.npy", _array(NAN), "NaN or infinite"),
    ("p.npy", _array(GOOD[:-1]), "59 test examples"),
    ("p.npy", _array(LOGITS.swapaxes(0, 1)), "the axes [members, examples, classes]"),
    ("p.npy", _array(GOOD.T), "the axes [members, examples, classes]"),
    ("p.npy", _array(GOOD[:, :3]), "give a column for each class"),
    ("p.npy", _array(softmax(GOOD, -1) / 2), "divide probabilities by their sum"),
    ("p.npy", _array(100 * softmax(GOOD, -1)), "divide probabilities by their sum"),
    ("p.npy", _array(np.full((N, K), -np.inf)), "probability 0"),
    ("p.npz", _arrays(a=GOOD, b=GOOD), "--key"),
    ("p.npz", _arrays(), "--key"),
    ("p.npz", _arrays(test=GOOD, validation=GOOD), "--validation-labels"),
    ("p.npz", _arrays(test=GOOD, validation=LOGITS, validation_labels=LABELS), "both splits"),
    ("p.csv", lambda path: path.write_text(""), "no readable .csv"),
    ("p.csv", lambda path: path.write_text("a,b\n"), "no rows"),
    ("p.csv", _table(a=["x"] * N, b=[1.0] * N), "column 'a'"),
    ("p.csv", lambda path: pd.DataFrame(GOOD, index=range(5, N + 5)).to_csv(path), "index=False"),
    ("p.csv", lambda path: np.savetxt(path, GOOD, delimiter=","), "no header"),
    ("p.csv", _table(a=GOOD[:, 0], b=GOOD[:, 1], member=[0] * 20 + [1] * 40), "different numbers of rows"),
    ("p.csv", _table(a=GOOD[:, 0], b=GOOD[:, 1], member=[0] * 30 + [1] * 30, label=LABELS), "labels differ"),
    ("p.csv", lambda path: path.write_text("id,0,1,label\n17,.2,.8,0\n18,.2,.8,1\n"), "column 'id' next to numbered"),
    ("p.npy", _array(np.abs(GOOD)), "--values logits"),
    ("p.npz", _arrays(test=GOOD, validation=GOOD, labels=LABELS, validation_labels=LABELS), "the test predictions"),
    ("p.parquet", lambda path: path.write_bytes(b"PAR1"), "no readable .parquet"),
]
BAD_LABELS = [
    ("y.npy", None, "does not exist"),
    ("y.tsv", lambda path: path.write_text("1"), "no known kind"),
    ("y.npy", _array(np.eye(K)[LABELS]), "one-hot"),
    ("y.npy", _array(LABELS + 0.5), "no whole numbers"),
    ("y.npy", _array(LABELS + 1), "number labels from 0"),
    ("y.npy", _array(LABELS - 1), "number labels from 0"),
    ("y.npy", _array(LABELS.astype(str)), "class number"),
    ("y.npy", _array(LABELS[:0]), "class number for each example"),
    ("y.npz", _arrays(a=LABELS, b=LABELS), "'labels'"),
    ("y.txt", lambda path: path.write_text("cat\ndog\n"), "no readable .txt"),
    ("y.csv", _table(a=LABELS, b=LABELS), "'label'"),
]


@pytest.mark.parametrize(
    ("predictions", "truth"),
    [(bad, ("y.npy", _array(LABELS), "")) for bad in BAD_PREDICTIONS]
    + [(("p.npy", _array(GOOD), ""), bad) for bad in BAD_LABELS],
)
def test_a_bad_file_is_one_sentence_that_names_it(
    predictions: Any, truth: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, make, _ in (predictions, truth):
        if make:
            make(tmp_path / name)
    code, _, error = command(monkeypatch, capsys, "score", tmp_path / predictions[0], "--labels", tmp_path / truth[0])
    assert code == 1
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert predictions[2] in error
    assert truth[2] in error
    assert (predictions if predictions[2] else truth)[0] in error


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["score"], "nothing to score"),
        (["score", "p.npy"], "--labels"),
        (["score", "p.npy", "--labels", "y.npy", "--values", "odds"], "'odds'"),
        (["score", "p.npy", "--labels", "y.npy", "--key", "x"], "--key"),
        (["score", "p.npy", "--labels", "y.npy", "--macs", "5"], "--suite"),
        (["score", "p.npy", "--labels", "y.npy", "--suite", "smoke", "--label", "x"], "--label and --size"),
        (["score", "p.npy", "--labels", "y.npy", "--suite", "smoke", "--remove", "X"], "not both"),
        (["score", "p.npy", "--labels", "y.npy", "--validation-labels", "y.npy"], "add --validation"),
        (["score", "--suite", "smoke", "--remove", "X"], "has no predictions of the suite 'smoke'"),
        (["compare", "p.npy", "p.npy"], "--labels"),
        (["compare", "A@1", "B@1", "--suite", "smoke", "--labels", "y.npy"], "for files"),
        (["compare", "p.npy", "q.npy", "--labels", "y.npy"], "'q.npy' does not exist"),
    ],
)
def test_a_bad_command_is_one_sentence(
    words: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("p.npy", GOOD)
    np.save("y.npy", LABELS)
    code, _, error = command(monkeypatch, capsys, *words)
    assert (code, error.count("\n")) == (1, 1)
    assert sentence in error


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["dbn-bench", *map(str, words)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    return int(end.value.code or 0), output.out, output.err


# ------------------------------------------------------------------------------------------------------ in a suite

TINY = """
title = "Tiny"
repetitions = 2
data = { source = "digits", test_fraction = 0.9 }
network = { name = "resnet8", channels = 4, width = 1.0 }
pool = { members = 3 }
recipe = { epochs = 2, batch_size = 32, crop_pad = 1 }
students = { epochs = 1 }
latency = { batch = 8, repeats = 3, batch_repeats = 3 }
methods = [{ use = "de", sizes = [1, 2, 3] }]
"""


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


def where(folder: Path, *names: str) -> list[str]:
    known = {"store": folder / "store", "rows": folder / "rows", "reports": folder / "reports"}
    return [f"--{name}={known[name]}" for name in names]


def summary(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rows" / "summary.csv").set_index(["label", "size"])


@pytest.fixture
def joined(
    finished: tuple[Path, Suite], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    folder, _ = finished

    def run(*words: object, render: bool = False) -> tuple[int, str, str]:
        with pytest.MonkeyPatch.context() as patch:
            if not render:
                patch.setattr("benchmarks.report.render", lambda *paths: [])
            suite, places = f"--suite={folder / 'tiny.toml'}", where(folder, "store", "rows", "reports")
            return command(monkeypatch, capsys, *words, suite, *(places if words[0] == "score" else places[:1]))

    return run


MEANS = ["acc_mean", "nll_mean", "brier_mean", "ece_mean", "cnll_mean", "cbrier_mean", "cece_mean", "temperature_mean"]


def test_predictions_join_a_suite_as_what_they_are(
    finished: tuple[Path, Suite], joined: Callable[..., tuple[int, str, str]]
) -> None:
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

    code, out, _ = joined("compare", "A copy@2", "DE@1", "--json")
    assert code == 0
    found = json.loads(out)
    table = pd.read_csv(folder / "rows" / "comparisons.csv").query("label == 'A copy' and reference == 'DE-1'")
    for row in found["rows"]:
        for _, stored in table[table.metric == row["metric"]].iterrows():
            for name in ("difference", "low", "high", "p_value"):
                assert row[name] == pytest.approx(stored[name], rel=1e-4)
    assert {row["metric"] for row in found["rows"]} == set(table.metric) == {"acc", "nll", "cnll", "ece", "cece"}
    assert found["repetitions"] == 2
    for row in found["rows"]:
        significant = row["p_holm"] <= 0.05
        name = {"acc": "accuracy", "nll": "NLL"}.get(row["metric"])
        better = (row["difference"] > 0) == (row["metric"] == "acc")
        if name and significant and better:
            assert name in found["verdict"].split("B (")[0]


def test_a_row_without_cost_or_validation_is_reported_replaced_and_removed(
    finished: tuple[Path, Suite], joined: Callable[..., tuple[int, str, str]]
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
    assert len(list((folder / "reports" / "tiny" / "figures").glob("*.png"))) == 7

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


def test_cleaning_keeps_added_predictions_even_damaged_ones(
    finished: tuple[Path, Suite], joined: Callable[..., tuple[int, str, str]]
) -> None:
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


def test_what_does_not_fit_a_suite_is_refused(
    finished: tuple[Path, Suite], joined: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
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
    refused("positive", "--label=New", "--macs=-1")
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


def test_compare_two_files(
    tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = np.where(np.eye(K)[LABELS] > 0, 3.0, 0.0) + 0.1 * GOOD
    a, b = write(tmp_path / "a.npy", good[None]), write(tmp_path / "b.npy", LOGITS)
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = command(monkeypatch, capsys, "compare", a, b, "--labels", labels)
    assert "…" not in out  # a narrow terminal cuts no digits off
    assert code == 0
    assert "is significantly better in NLL, accuracy and ECE (5 %, Holm)." in out
    assert "One repetition: it speaks of these two sets of predictions on other examples" in out
    code, out, _ = command(monkeypatch, capsys, "compare", a, b, "--labels", labels, "--json")
    nll = {row["metric"]: row for row in json.loads(out)["rows"]}["nll"]
    theirs = log_loss(LABELS, softmax(LOGITS, -1).mean(0), labels=range(K))
    mine = log_loss(LABELS, softmax(good, -1), labels=range(K))
    assert (nll["a"], nll["b"], nll["difference"]) == pytest.approx((mine, theirs, mine - theirs))
    assert nll["low"] < nll["difference"] < nll["high"] < 0
    right = np.arange(N), LABELS
    gaps = np.log(softmax(LOGITS, -1).mean(0)[right]) - np.log(softmax(good, -1)[right])
    assert nll["p_value"] == pytest.approx(ttest_1samp(gaps, 0).pvalue, rel=1e-6)
    _, out, _ = command(monkeypatch, capsys, "compare", b, b, "--labels", labels)
    assert "The difference in NLL, accuracy and ECE is not significant (5 %, Holm)." in out


def test_five_examples_prove_no_difference_and_infinity_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right, labels = np.array([[0.9, 0.1]] * 5), np.zeros(5, int)
    for name, probs in (("a", right), ("b", right[:, ::-1])):
        np.savez(tmp_path / f"{name}.npz", p=probs, labels=labels)
    code, out, _ = command(monkeypatch, capsys, "compare", tmp_path / "a.npz", tmp_path / "b.npz")
    assert code == 0
    assert "significantly better" not in out
    assert "the exact sign test" in out
    _, out, _ = command(monkeypatch, capsys, "compare", tmp_path / "a.npz", tmp_path / "b.npz", "--json")
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


@pytest.mark.parametrize("names", [["cat", "dog", "eel", "fox"], ["0", "1", "2", "3"], ["class 0", "1a", "b", "c"]])
def test_classes_in_another_order_than_the_suites_are_refused(names: list[str], tmp_path: Path, labels: Path) -> None:
    pd.DataFrame(GOOD, columns=names).to_csv(tmp_path / "p.csv", index=False)
    predictions = load_predictions(tmp_path / "p.csv", labels)
    check_classes(predictions, names)
    check_classes(predictions, ["one", "two", "three", "four"])
    if names[0] != "0":  # numbered columns are put in order
        with pytest.raises(DataError, match="another order: order its columns"):
            check_classes(predictions, names[::-1])
