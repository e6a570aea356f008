"""Entries of the leaderboard: committed ones are scored again; new ones are checked, scored and written whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, load_file
from sklearn.metrics import log_loss
from typer.testing import CliRunner

from benchmarks.cli import application
from benchmarks.commands.common import load_plan
from benchmarks.entries import FOLDER, PREDICTIONS, check_fields, load_entries, make_entry, read_entry
from benchmarks.report.leaderboard import load_boards
from benchmarks.results.entries import check_repetitions, packed, rescore, write_entry
from benchmarks.store.artefacts import Store
from benchmarks.suite.names import cells_of_result
from benchmarks.suite.plan import Plan
from dbn_core.errors import ArtefactError, DataError, SpecError, StoreError

ROOT = Path(__file__).resolve().parents[3]
SUITE = "cifar10-cpu"
COMMITTED = load_entries(ROOT / FOLDER)
ABOUT = {"--method": "Theirs", "--paper": "arXiv 1234.56789", "--code": "https://example.org/code", "--licence": "MIT"}
ABOUT |= {"--who": "somebody", "--size": "2"}
WORDS = [word for pair in ABOUT.items() for word in pair]
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def released() -> tuple[Plan, Store]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DBN_RELEASED", str(ROOT / "results/released"))
        plan, store = load_plan(SUITE, Path("no/store/here"), None, None, None)
        store.arrays("predictions", plan.cells[0].predictions)  # opens the archives
    return plan, store


@pytest.fixture(autouse=True)
def _in_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBN_RELEASED", str(ROOT / "results/released"))
    monkeypatch.chdir(tmp_path)


def ensemble(released: tuple[Plan, Store], repetition: int, size: int = 2) -> Arrays:
    """The released predictions of a deep ensemble, as a file that somebody else wrote."""
    plan, store = released
    cells = [cell for cell in plan.cells if cell.is_reference and cell.repetition == repetition]
    stored = store.arrays("predictions", cells[0].predictions)
    arrays = {name: np.exp(stored[name][:size].astype(np.float64)) for name in ("test", "validation")}
    return arrays | {"labels": stored["test_labels"], "validation_labels": stored["validation_labels"]}


def submit(*words: str, answers: str | None = None) -> Any:
    done = CliRunner().invoke(application("submit"), ["submit", *words], input=answers)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


# ------------------------------------------------------------------------------------------------- committed entries


@pytest.mark.parametrize("folder", [folder for folder, entry in COMMITTED.items() if entry.predictions], ids=str)
def test_a_committed_entry_scores_as_the_leaderboard_says(folder: Path, released: tuple[Plan, Store]) -> None:
    entry = COMMITTED[folder]
    plan, store = load_plan(entry.suite, Path("no/store/here"), None, None, None)
    found = rescore(folder, entry, plan, store)
    assert set(found.scores) == set(entry.scores)
    for name, figure in found.scores.items():
        assert figure.model_dump() == pytest.approx(entry.scores[name].model_dump(), rel=1e-4), (
            f"{name} differs: `dbn-bench leaderboard --rescore` writes it again"
        )
    if entry.status != "disputed":
        (board,) = [board for board in load_boards(ROOT / "results") if board.suite == entry.suite]
        rows = [row for row in board.shown if row.entry and (row.label, row.size) == (entry.method, entry.size)]
        scores = {name: figure.value for name, figure in found.scores.items()}
        assert any(
            (row.acc, row.nll, row.dee["dee_raw"][0], row.n)
            == pytest.approx((scores["acc"], scores["nll"], scores["dee_raw"], entry.repetitions), rel=1e-4)
            for row in rows
        )


# ------------------------------------------------------------------------------------------------------- a new entry


def test_an_ensemble_of_two_that_is_submitted_is_worth_two(released: tuple[Plan, Store]) -> None:
    files = [f"mine-{repetition}.npz" for repetition in range(2)]
    given = [ensemble(released, repetition) for repetition in range(2)]
    for file, arrays in zip(files, given, strict=True):
        np.savez(file, **arrays)
    said = submit(SUITE, *files, *WORDS, "--macs", "8e7", "--train-passes", "5376000").output
    assert "Wrote results/entries/cifar10-cpu/theirs-2" in said
    assert "open a pull request with results/entries/cifar10-cpu/theirs-2" in said
    folder = FOLDER / SUITE / "theirs-2"
    entry = read_entry(folder)
    assert (entry.status, entry.repetitions, entry.size) == ("scored", 2, 2)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["theirs-2"]
    probs = [arrays["test"].mean(0) for arrays in given]
    nll = np.mean(
        [log_loss(arrays["labels"], p / p.sum(1, keepdims=True)) for arrays, p in zip(given, probs, strict=True)]
    )
    acc = np.mean([np.mean(p.argmax(1) == arrays["labels"]) for arrays, p in zip(given, probs, strict=True)])
    assert entry.scores["nll"].value == pytest.approx(nll, abs=1e-4)  # in half precision
    assert entry.scores["acc"].value == pytest.approx(acc, abs=1e-6)
    for curve in ("dee_raw", "dee_cal"):
        figure = entry.scores[curve]
        assert figure.value == pytest.approx(2, abs=0.01)
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= 2.01
        assert figure.high >= 1.99
    stored = load_file(folder / PREDICTIONS)
    assert {name: (array.shape, array.dtype.name) for name, array in stored.items()} == {
        "test": ((2, 10000, 10), "float16"),
        "validation": ((2, 5000, 10), "float16"),
    }
    assert rescore(folder, entry, *released) == entry
    with pytest.raises(SpecError, match="--replace"):
        submit(SUITE, files[0], *WORDS)


def test_one_repetition_has_intervals_over_examples_and_asks_on_a_terminal(
    released: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.commands.submit._on_terminal", lambda: True)
    arrays = ensemble(released, 0, 1)
    arrays["test"][0, 0, (arrays["labels"][0] + 1) % 10] = 0
    np.savez("one.npz", test=arrays["test"], labels=arrays["labels"])
    answers = "Theirs (JAX)\nmany\n3\nnone\nno address\nnone\nMIT\nme\n"
    said = submit(SUITE, "one.npz", answers=answers).output
    assert "begins with https://" in said  # asked again
    assert "not of other trainings" in said
    assert "1 of 100,000 test probabilities are exactly 0" in said  # as `score` says
    entry = read_entry(FOLDER / SUITE / "theirs-jax-3")
    assert (entry.paper, entry.code, entry.repetitions) == ("none", "none", 1)
    assert set(entry.scores) == {"acc", "nll", "dee_raw", "dee_augrc"}  # nothing calibrated without validation
    n, acc = len(arrays["labels"]), entry.scores["acc"]
    assert acc.low == pytest.approx(acc.value - 1.96 * np.sqrt(acc.value * (1 - acc.value) / n), abs=1e-4)


def test_without_a_terminal_a_missing_field_is_named_before_anything_is_read() -> None:
    with pytest.raises(SpecError, match=r"needs --size, --who: give them"):
        submit(SUITE, "absent.npz", *WORDS[:-4])
    with pytest.raises(SpecError, match="--code: write an address"):
        submit(SUITE, "absent.npz", *WORDS, "--code", "somewhere")
    with pytest.raises(SpecError, match="'digits' are not released"):
        submit("digits", "absent.npz", *WORDS)
    with pytest.raises(SpecError, match="is a suite of generation"):
        submit("mixture2d", "absent.npz", *WORDS)
    with pytest.raises(SpecError, match="--stated"):
        submit(SUITE, *WORDS)
    with pytest.raises(SpecError, match="--on is for figures"):
        submit(SUITE, "absent.npz", *WORDS, "--on", "CIFAR-10")
    assert not Path("results").exists()


def test_rounding_to_half_precision_keeps_the_most_probable_class() -> None:
    rng = np.random.default_rng(0)
    close = np.log(np.array([0.25, 0.25, 0.5 - 1e-4, 1e-4]) + rng.uniform(0, 2e-5, (2, 500, 4)))
    stored = load(packed([{"test": block} for block in close[:, None]]))["test"]
    np.testing.assert_array_equal(stored.argmax(-1), close.argmax(-1))
    np.testing.assert_allclose(np.exp(stored.astype(float)), np.exp(close), atol=3e-4)


def example_major(block: np.ndarray) -> np.ndarray:
    """Rows [N * M, K], all members of one example after the other, read as [M * N, K]."""
    return block.swapaxes(0, 1).reshape(block.shape)


BROKEN: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "order": (lambda a: a | {"test_labels": np.roll(a["test_labels"], 1)}, "labels given for .* differ"),
    "classes": (lambda a: a | {"test": a["test"][..., :9]}, "has 9 classes"),
    "examples": (lambda a: {n: v[:, :5] if n == "test" else v[:5] for n, v in a.items()}, "has 5 test examples"),
    "chance": (lambda a: a | {"test": np.roll(a["test"], 1, -1)}, "test accuracy of .* chance with 10 classes"),
    "stacked": (lambda a: a | {"test": example_major(a["test"])}, "stacked rows hold one member after the other"),
    "shuffled": (lambda a: a | {"validation": np.roll(a["validation"], 9, 1)}, "validation accuracy of .* at chance"),
    "reversed": (
        lambda a: a | {"validation": a["validation"][..., ::-1]},
        "validation accuracy of .* far below chance",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_predictions_that_cannot_be_right_are_refused(how: str, released: tuple[Plan, Store]) -> None:
    change, message = BROKEN[how]
    given = ensemble(released, 0)
    arrays = {name: np.log(given[name]) for name in ("test", "validation")}
    arrays |= {"test_labels": given["labels"], "validation_labels": given["validation_labels"]}
    with pytest.raises(DataError, match=message):
        check_repetitions(*released, [change(arrays)], ["mine.npz"])


def test_repetitions_are_trainings_of_their_own(released: tuple[Plan, Store]) -> None:
    given = ensemble(released, 0)
    arrays = {"test": np.log(given["test"]), "test_labels": given["labels"]}
    with pytest.raises(DataError, match="'a' and 'b' hold the same predictions"):
        check_repetitions(*released, [arrays, arrays], ["a", "b"])
    with pytest.raises(SpecError, match="6 files"):
        check_repetitions(*released, [arrays] * 6, list("abcdef"))
    np.save("labels.npy", given["labels"])
    for name in ("a", "b"):
        np.save(f"{name}.npy", given["test"])
    with pytest.raises(SpecError, match="2 files of predictions and 1 of --validation"):
        submit(SUITE, "a.npy", "b.npy", *WORDS, "--labels", "labels.npy", "--validation", "a.npy")


def test_an_entry_is_compared_with_a_method_of_the_suite(released: tuple[Plan, Store]) -> None:
    one = {repetition: ensemble(released, repetition, 1) for repetition in range(2)}
    given = [{"test": np.log(a["test"]), "test_labels": a["labels"]} for a in one.values()]
    fields = FIELDS | {"repetitions": 2, "size": 1, "predictions": "0"}
    write_entry(FOLDER, make_entry(fields), packed(given))
    words = ["compare", "theirs@1", "DE@2", "--suite", SUITE, "--json", "--store", "absent"]
    done = CliRunner().invoke(application("compare"), words)
    assert done.exit_code == 0, done.exception
    found = json.loads(done.output)
    assert (found["a"], found["repetitions"]) == ("Theirs, size 1", 2)
    rows = {row["metric"]: row for row in found["rows"]}
    nll = np.mean([log_loss(a["labels"], a["test"][0] / a["test"][0].sum(1, keepdims=True)) for a in one.values()])
    assert rows["nll"]["a"] == pytest.approx(nll, abs=1e-4)
    assert rows["nll"]["difference"] > 0
    with pytest.raises(SpecError) as raised:
        cells_of_result(released[0].cells, "Nobody's method@2", SUITE)
    assert str(raised.value).count(" DE@2,") == 1


def test_an_entry_has_a_method_of_its_own() -> None:
    about = ("--stated", "acc=0.9", "--on", "CIFAR-10, ResNet-18")
    with pytest.raises(SpecError, match="has a method 'de' of its own"):
        submit(SUITE, *WORDS, *about, "--method", "de")
    submit(SUITE, *WORDS, *about)
    with pytest.raises(SpecError, match="replace it with --name theirs-2 --replace"):
        submit(SUITE, *WORDS, *about, "--name", "other", "--method", "THEIRS")
    submit(SUITE, *WORDS, *about, "--replace")
    submit(SUITE, *WORDS, *about, "--method", "方法")
    assert read_entry(FOLDER / SUITE / "entry-2").method == "方法"


def test_stated_figures_need_no_predictions_and_are_never_ranked() -> None:
    words = [*WORDS, "--on", "CIFAR-10, ResNet-18"]
    submit(SUITE, *words, "--stated", "acc=0.93", "--stated", "dee_raw=<1")
    folder = FOLDER / SUITE / "theirs-2"
    entry = read_entry(folder)
    assert (entry.status, entry.repetitions, entry.scores["dee_raw"].value) == ("stated", None, -np.inf)
    assert not (folder / PREDICTIONS).exists()
    wrong = {"acc=93": "fraction", "speed=1": "unknown figure", "acc": "NAME=VALUE", "dee_raw=-3": "above 0"}
    for pair, message in wrong.items():
        with pytest.raises(SpecError, match=message):
            submit(SUITE, *words, "--replace", "--stated", pair)
    for more, message in (
        (["--paper", "none"], "stated figures need their --paper"),
        (["--on", ""], "--on"),
        (["--paper", "a good one"], "--paper: write a number as in"),
        (["--macs", "0.5"], "--macs: "),
        (["--params", "1.2M"], "'1.2M' is no number: write"),
        (["file.npz"], "Both files and --stated"),
    ):
        with pytest.raises(SpecError, match=message):
            submit(SUITE, *words, "--replace", "--stated", "acc=0.9", *more)
    assert read_entry(folder) == entry


@pytest.mark.parametrize("paper", ["arXiv 2010.06610", "2010.06610v2", "doi:10.1000/x.1", "https://a.org/b", "none"])
def test_a_paper_is_a_number_or_an_address(paper: str) -> None:
    assert check_fields({"paper": paper}) == {"paper": paper}


# ---------------------------------------------------------------------------------------------------- files of entries

FIELDS: dict[str, Any] = {
    **{"suite": SUITE, "name": "theirs-2", "method": "Theirs", "paper": "none", "code": "none", "licence": "MIT"},
    **{"who": "me", "size": 2, "repetitions": 1, "predictions": "0" * 64, "scores": {"acc": {"value": 0.5}}},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "disputed"}, "needs a reason"),
        ({"status": "reproduced"}, "needs its plugin"),
        ({"status": "reproduced", "plugin": "theirs.py"}, "names the file 'theirs.py'"),
        ({"status": "reproduced", "plugin": "../theirs.py"}, "in the folder of the entry"),
        ({"status": "stated"}, "one without is stated"),
        ({"status": "liked"}, "status"),
        ({"licence": " "}, "licence"),
        ({"method": "two\nlines"}, "one line"),
        ({"name": "other"}, "rename the folder"),
        ({"scores": {"acc": {"value": "nan"}}}, "not NaN"),
        ({"stars": 5}, "stars"),
        ({"on": "CIFAR-10, ResNet-18"}, "--on is for stated figures"),
    ],
    ids=str,
)
def test_a_file_that_breaks_the_rules_is_named(change: dict[str, Any], message: str) -> None:
    folder = write_entry(FOLDER, make_entry(FIELDS), b"predictions")
    (folder / "entry.json").write_text(json.dumps(FIELDS | change))
    with pytest.raises(ArtefactError, match=message):
        load_entries()


def test_a_maintainer_may_dispute_and_reproduce(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("")
    folder = write_entry(FOLDER, make_entry(FIELDS | {"plugin": "theirs.py"}), b"p", tmp_path / "theirs.py")
    for change in ({"status": "reproduced"}, {"status": "disputed", "reason": "trained on the test split"}):
        (folder / "entry.json").write_text(json.dumps(FIELDS | {"plugin": "theirs.py"} | change))
        assert load_entries()[folder].status == change["status"]


def test_predictions_that_were_altered_are_noticed(released: tuple[Plan, Store]) -> None:
    folder = write_entry(FOLDER, make_entry(FIELDS), b"predictions")
    with pytest.raises(ArtefactError, match=r"is not what entry\.json names"):
        rescore(folder, read_entry(folder), *released)


def test_an_entry_is_replaced_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_entry(FOLDER, make_entry(FIELDS), b"old")
    real = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(StoreError, match="No space left"):
            write_entry(FOLDER, make_entry(FIELDS | {"size": 3}), b"new", replace=True)
    assert (folder / PREDICTIONS).read_bytes() == b"old"
    assert read_entry(folder).size == 2
    write_entry(FOLDER, make_entry(FIELDS | {"size": 3}), b"new", replace=True)
    assert read_entry(folder).size == 3
    assert [path.name for path in folder.parent.iterdir()] == ["theirs-2"]
