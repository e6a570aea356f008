"""Predictions from anywhere: files against independent scores, and bad files."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from netcal.metrics import ECE
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from benchmarks.results.external.predictions import predictions_of_file
from dbn_core.errors import DataError
from dbn_core.metrics.scores import LOG_FLOOR
from dbn_core.tasks.class_scores import score_arrays
from tests.support.command import DbnBench

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
    found = predictions_of_file(path, None if suffix in ("csv", "parquet") else labels)
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
    found = predictions_of_file(write(tmp_path / "p.npy", LOGITS), path)
    np.testing.assert_array_equal(found.arrays["test_labels"], LABELS)


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet"])
def test_members_one_after_the_other_are_told_by_the_labels(suffix: str, tmp_path: Path, labels: Path) -> None:
    rows, path = LOGITS.reshape(-1, K), tmp_path / f"p.{suffix}"
    if suffix == "npy":
        np.save(path, rows)
    else:
        frame = pd.DataFrame(rows, columns=[f"class {k}" for k in range(K)])
        frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    found = predictions_of_file(path, labels)
    assert np.allclose(found.arrays["test"], log_softmax(LOGITS, -1), atol=1e-5)
    assert "3 members, one after the other" in found.notes[0]


@pytest.mark.parametrize("first", [0, 1])  # as pandas and as R count rows
def test_a_column_that_counts_rows_is_no_class(first: int, tmp_path: Path, labels: Path) -> None:
    pd.DataFrame(LOGITS[0], index=range(first, N + first)).to_csv(tmp_path / "p.csv")
    assert predictions_of_file(tmp_path / "p.csv", labels).arrays["test"].shape == (1, N, K)


def test_an_npz_may_hold_everything(tmp_path: Path) -> None:
    half = N // 2
    path = tmp_path / "all.npz"
    arrays = {"validation": LOGITS[:, :half], "validation_labels": LABELS[:half]}
    np.savez(path, probs=LOGITS[:, half:], other=LOGITS, labels=LABELS[half:], **arrays)
    with pytest.raises(DataError, match="--key"):
        predictions_of_file(path)
    scores = score_arrays(predictions_of_file(path, key="probs").arrays)
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
    np.testing.assert_allclose(predictions_of_file(path, labels).arrays["test"][0], log_softmax(LOGITS[0], -1))


def test_what_rounding_did_is_forgiven(tmp_path: Path, labels: Path) -> None:
    rounded = softmax(LOGITS, -1).round(3)
    found = predictions_of_file(write(tmp_path / "p.csv", rounded))
    assert ": probabilities" in found.notes[0]
    np.testing.assert_allclose(np.exp(found.arrays["test"]).sum(-1), 1)
    half = log_softmax(LOGITS, -1).astype(np.float16)
    assert ": log-probabilities" in predictions_of_file(write(tmp_path / "p.npy", half), labels).notes[0]


@pytest.mark.parametrize("kind", ["probabilities", "log-probabilities"])
def test_a_probability_of_zero_has_a_finite_score(kind: str, tmp_path: Path, labels: Path) -> None:
    probs = np.zeros((1, N, K))
    probs[0, np.arange(N), LABELS] = probs[0, np.arange(N), (LABELS + 1) % K] = 0.5
    probs[0, 0, [LABELS[0], (LABELS[0] + 2) % K]] = 0, 0.5
    with np.errstate(divide="ignore"):
        block = probs if kind == "probabilities" else np.log(probs)
    scores = score_arrays(predictions_of_file(write(tmp_path / "p.npy", block), labels).arrays)
    assert scores.examples["nll"][0] == pytest.approx(-LOG_FLOOR)
    assert scores.examples["nll"][1:] == pytest.approx(np.log(2))
    assert (scores.zeros, scores.zero_labels) == (2 * N, 1)


def test_a_said_kind_is_believed(tmp_path: Path, labels: Path) -> None:
    probs = softmax(LOGITS, -1)
    found = predictions_of_file(write(tmp_path / "p.npy", probs), labels, values="logits")
    np.testing.assert_allclose(found.arrays["test"], log_softmax(probs, -1))
    assert "every test row sums to 1, as probabilities" in found.notes[1]
    percent = predictions_of_file(write(tmp_path / "c.npy", 100 * probs), labels, values="logits")
    assert "every test row sums to 100, as" in percent.notes[1]
    negative = write(tmp_path / "n.npy", -5 - np.abs(LOGITS))
    assert ": logits" in predictions_of_file(negative, labels).notes[0]
    assert len(predictions_of_file(write(tmp_path / "z.npy", LOGITS), labels, values="logits").notes) == 1


@pytest.mark.parametrize("test", KINDS)
@pytest.mark.parametrize("validation", KINDS)
def test_each_split_may_hold_another_kind(test: str, validation: str, tmp_path: Path) -> None:
    half, path = N // 2, tmp_path / "p.npz"
    splits = {"test": KINDS[test](LOGITS[:, :half]), "validation": KINDS[validation](LOGITS[:, half:])}
    np.savez(path, **splits, labels=LABELS[:half], validation_labels=LABELS[half:])
    found = predictions_of_file(path)
    np.testing.assert_allclose(found.arrays["test"], log_softmax(LOGITS[:, :half], -1))
    np.testing.assert_allclose(found.arrays["validation"], log_softmax(LOGITS[:, half:], -1))
    assert [f": {kind}, " in note for kind, note in zip((test, validation), found.notes, strict=True)] == [True, True]


@pytest.mark.parametrize(("kind", "members"), [("logits", 4), ("probabilities", 1)])
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
    score_arrays(predictions_of_file(tmp_path / "p.npz").arrays)  # what is imported is no part of it
    tracemalloc.start()
    try:
        scores = score_arrays(predictions_of_file(tmp_path / "p.npz").arrays)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "cnll" in scores
    assert peak < 3.2 * size


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
    ("p.npy", lambda path: path.write_bytes(b"hello there"), "plain numbers"),
    ("p.npz", lambda path: path.write_bytes(b"PK\x03\x04 broken"), "no readable .npz"),
    ("p.npy", _array(GOOD.astype(str)), "type <U"),
    ("p.npy", _array(GOOD[:0]), "shape [1, 0, 4]"),
    ("p.npy", _array(NAN), "NaN or infinite"),
    ("p.npy", _array(GOOD[:-1]), "59 test examples"),
    ("p.npy", _array(LOGITS.swapaxes(0, 1)), "the axes [members, examples, classes]"),
    ("p.npy", _array(GOOD[:, :3]), "give a column for each class"),
    ("p.npy", _array(softmax(GOOD, -1) / 2), "divide probabilities by their sum"),
    ("p.npy", _array(np.full((N, K), -np.inf)), "probability 0"),
    ("p.npz", _arrays(a=GOOD, b=GOOD), "--key"),
    ("p.npz", _arrays(test=GOOD, validation=GOOD), "--validation-labels"),
    ("p.npz", _arrays(test=GOOD, validation=LOGITS, validation_labels=LABELS), "both splits"),
    ("p.csv", lambda path: path.write_text(""), "no readable .csv"),
    ("p.csv", lambda path: path.write_text("0, 0,1,label\n.5,.2,.5,0\n"), "two columns called '0'"),
    ("p.csv", lambda path: path.write_text("member,0,1,label\n,.5,.5,0\n"), "rows without a member"),
    ("p.csv", lambda path: path.write_text("0,1,label\n.5,.5,0\n.5,.5\n.5,.5,0,0,0\n"), "no readable .csv"),
    ("p.csv", lambda path: path.write_text('0,1,label\n".5,.5,0\n'), "p.csv"),
    ("p.csv", _table(a=["x"] * N, b=[1.0] * N), "column 'a'"),
    ("p.csv", lambda path: pd.DataFrame(GOOD, index=range(5, N + 5)).to_csv(path), "index=False"),
    ("p.csv", lambda path: np.savetxt(path, GOOD, delimiter=","), "no header"),
    ("p.csv", _table(a=GOOD[:, 0], b=GOOD[:, 1], member=[0] * 20 + [1] * 40), "different numbers of rows"),
    ("p.csv", _table(a=GOOD[:, 0], b=GOOD[:, 1], member=[0] * 30 + [1] * 30, label=LABELS), "labels differ"),
    ("p.csv", lambda path: path.write_text("id,0,1,label\n17,.2,.8,0\n18,.2,.8,1\n"), "column 'id' next to numbered"),
    ("p.npy", _array(np.abs(GOOD)), "--values logits"),
    ("p.npz", _arrays(test=GOOD, validation=GOOD, labels=LABELS, validation_labels=LABELS), "the test predictions"),
    ("p.npz", _arrays(test=GOOD[:9], validation=GOOD, validation_labels=LABELS[:9]), "swapped?"),
    ("p.npz", _arrays(test=GOOD[:9]), "9 test examples with 60 labels"),
    ("p.csv", _table(cat=GOOD[:, 0], id=range(7, N + 7), dog=GOOD[:, 1]), "column 'id' of whole numbers"),
    ("p.parquet", lambda path: path.write_bytes(b"PAR1"), "no readable .parquet"),
]
BAD_LABELS = [
    ("y.npy", None, "does not exist"),
    ("y.npy", _array(np.eye(K)[LABELS]), "one-hot"),
    ("y.npy", _array(LABELS + 0.5), "no whole numbers"),
    ("y.npy", _array(LABELS + 1), "number labels from 0"),
    ("y.npy", _array(np.array(["cat", "dog"])[LABELS % 2]), "are text: give the class number"),
    ("y.npy", _array(LABELS[:0]), "class number for each example"),
    ("y.npz", _arrays(a=LABELS, b=LABELS), "'labels'"),
    ("y.csv", _table(a=LABELS, b=LABELS), "'label'"),
]


@pytest.mark.parametrize(
    ("predictions", "truth"),
    [(bad, ("y.npy", _array(LABELS), "")) for bad in BAD_PREDICTIONS]
    + [(("p.npy", _array(GOOD), ""), bad) for bad in BAD_LABELS],
)
def test_a_bad_file_is_one_sentence_that_names_it(
    predictions: Any, truth: Any, tmp_path: Path, dbn_bench: DbnBench
) -> None:
    for name, make, _ in (predictions, truth):
        if make:
            make(tmp_path / name)
    code, _, error = dbn_bench("score", tmp_path / predictions[0], "--labels", tmp_path / truth[0])
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
        (["score", "p.npy", "--labels", "y.npy", "--macs", "5"], "--suite"),
        (["score", "p.npy", "--labels", "y.npy", "--suite", "smoke", "--label", "x"], "--label and --size"),
        (["score", "p.npy", "--labels", "y.npy", "--suite", "smoke", "--remove", "X"], "not both"),
        (["score", "--suite", "smoke", "--remove", "X"], "has no predictions of the suite 'smoke'"),
        (["compare", "p.npy", "p.npy"], "--labels"),
        (["compare", "A@1", "B@1", "--suite", "smoke", "--labels", "y.npy"], "for files"),
    ],
)
def test_a_bad_command_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dbn_bench: DbnBench
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("p.npy", GOOD)
    np.save("y.npy", LABELS)
    code, _, error = dbn_bench(*words)
    assert (code, error.count("\n")) == (1, 1)
    assert sentence in error


CLASSES = ["cat", "dog", "eel", "fox"]


@pytest.mark.parametrize("written", ["{}", "p_{}", "{} (%)", "Class {}"])
def test_columns_are_the_classes_of_the_suite_in_its_order(written: str, tmp_path: Path, labels: Path) -> None:
    names = [written.format(name.title()) for name in CLASSES]
    pd.DataFrame(GOOD, columns=names).to_csv(tmp_path / "p.csv", index=False)
    assert len(predictions_of_file(tmp_path / "p.csv", labels, classes=CLASSES).notes) == 1
    for classes, words in ((CLASSES[::-1], "order its columns as fox, eel"), (CLASSES[:3], f"column '{names[3]}'")):
        with pytest.raises(DataError, match=re.escape(words)):
            predictions_of_file(tmp_path / "p.csv", labels, classes=classes)


def test_columns_with_other_names_are_taken_in_their_order_and_that_is_said(tmp_path: Path, labels: Path) -> None:
    pd.DataFrame(GOOD, columns=["p0", "p1", "p2", "p3"]).to_csv(tmp_path / "p.csv", index=False)
    found = predictions_of_file(tmp_path / "p.csv", labels, classes=CLASSES)
    assert "(p0, p1, p2, p3) are not named as the classes are (cat, dog, eel, fox)" in found.notes[1]
    pd.DataFrame(GOOD, columns=range(K)).to_csv(tmp_path / "p.csv", index=False)  # numbered columns are put in order
    assert len(predictions_of_file(tmp_path / "p.csv", labels, classes=CLASSES).notes) == 1


def test_columns_of_validation_have_the_order_of_those_of_test(tmp_path: Path) -> None:
    for name, order in (("p", CLASSES), ("v", CLASSES[::-1])):
        frame = pd.DataFrame(GOOD if name == "p" else GOOD / 2, columns=CLASSES)[order]
        frame.assign(label=LABELS).to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(DataError, match=r"v\.csv' has the classes in another order"):
        predictions_of_file(tmp_path / "p.csv", validation=tmp_path / "v.csv")
