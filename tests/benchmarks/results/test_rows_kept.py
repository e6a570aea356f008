"""The files of a suite's rows: whole or not there, and not replaced by those of another suite of the same name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.report.load import read_results
from benchmarks.results.rows import ResultTables
from benchmarks.run import write_results
from dbn_core.errors import ArtefactError, StoreError
from tests.support import tiny
from tests.support.command import DbnBench, Said

SUITE = tiny.HEAD + tiny.DE


Run = Callable[..., Said]


@pytest.fixture
def run(dbn_bench: DbnBench) -> Run:
    """Runs a suite with a folder's store, rows and reports."""

    def go(folder: Path, suite: Path, *words: object) -> Said:
        places = [f"--{name}={folder / name}" for name in ("store", "rows", "reports")]
        return dbn_bench("run", suite, *places, "--jobs=0", "--device=cpu", *words)

    return go


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    tiny.run(folder, SUITE)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """Store and rows of a suite that was run, whose file stays where it was."""
    for name in ("store", "rows"):
        shutil.copytree(finished / name, tmp_path / name)
    return tmp_path


def title(folder: Path) -> str:
    return str(json.loads((folder / "rows" / "meta.json").read_text())["title"])


def test_a_suite_of_the_same_name_does_not_replace_anothers_rows(finished: Path, folder: Path, run: Run) -> None:
    other = folder / "other" / "tiny.toml"
    other.parent.mkdir()
    other.write_text(SUITE.replace('"Tiny"', '"Other"').replace("epochs = 1", "epochs = 2"))
    before = (folder / "rows" / "summary.csv").read_bytes()
    refused = run(folder, other)
    said = refused.err
    assert refused.code == 1
    assert "recipe.epochs 1, now 2" in said
    assert "title 'Tiny', now 'Other'" in said
    assert "--set name=NAME" in said
    assert "--replace-rows" in said
    assert (title(folder), (folder / "rows" / "summary.csv").read_bytes()) == ("Tiny", before)
    assert run(folder, other, "--replace-rows", "--set", "recipe.epochs=1").code == 0
    assert title(folder) == "Other"
    assert "title 'Other', now 'Tiny'" in run(folder, finished / "tiny.toml").err


def test_variants_of_one_suite_do_not_replace_each_others_rows(finished: Path, folder: Path, run: Run) -> None:
    refused = run(folder, finished / "tiny.toml", "--set", "recipe.lr=0.5")
    assert "recipe.lr" in refused.err


@pytest.mark.parametrize(
    "words", [["--set", "repetitions=2", "--only", "de"], ["--add", "ts@1"], ["--set", "latency.repeats=4"]]
)
def test_a_suite_goes_on_with_more_of_the_same(finished: Path, folder: Path, run: Run, words: list[str]) -> None:
    assert run(folder, finished / "tiny.toml", *words).code == 0


def test_a_run_names_the_rows_that_are_not_there_any_more(finished: Path, folder: Path, run: Run) -> None:
    added = run(folder, finished / "tiny.toml", "--add", "ts@1")
    assert "No longer" not in added.out
    label = "Single (temperature-scaled)"
    assert f"No longer in the rows: {label}@1 (still in the store" in run(folder, finished / "tiny.toml").out


def test_a_suite_file_that_was_changed_replaces_its_own_rows(finished: Path, folder: Path, run: Run) -> None:
    suite = finished / "tiny.toml"
    try:
        suite.write_text(SUITE.replace('"Tiny"', '"Changed"').replace("batch_size = 32", "batch_size = 64"))
        assert run(folder, suite).code == 0
    finally:
        suite.write_text(SUITE)
    assert title(folder) == "Changed"


def test_the_same_suite_from_another_place_and_rows_of_earlier_versions_are_replaced(folder: Path, run: Run) -> None:
    moved = folder / "tiny.toml"
    moved.write_text(SUITE)
    assert run(folder, moved).code == 0
    path = folder / "rows" / "meta.json"
    meta = json.loads(path.read_text())
    del meta["definition"]
    path.write_text(json.dumps(meta | {"title": "Earlier"}))
    assert run(folder, moved).code == 0
    assert title(folder) == "Tiny"


def test_rows_that_cannot_be_written_leave_the_old_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full while the new ones are written: nothing has taken its place by then."""
    before = {path.name: path.read_bytes() for path in (folder / "rows").iterdir()}
    loaded = read_results(folder / "rows")
    tables = ResultTables(loaded.rows, loaded.summary, loaded.comparisons, loaded.reliability, loaded.rows[:0], [], {})

    def refuse(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("dbn_core.files.tempfile.mkstemp", refuse)
        with pytest.raises(StoreError, match="No space left on device"):
            write_results(folder / "rows", tables, {"title": "New"})
    assert {path.name: path.read_bytes() for path in (folder / "rows").iterdir()} == before


@pytest.mark.parametrize("left", [0, 3])
def test_a_run_that_dies_while_it_writes_rows_leaves_no_mixture(
    folder: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    loaded = read_results(folder / "rows")
    (folder / "rows" / "exhibits.safetensors").write_bytes(b"of an earlier run")
    tables = ResultTables(loaded.rows, loaded.summary, loaded.comparisons, loaded.reliability, loaded.rows[:0], [], {})
    replace, count = Path.replace, [left]

    def die(path: Path, target: Path) -> Path:
        count[0] -= 1
        if count[0] < 0:
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            write_results(folder / "rows", tables, {"title": "New"})
    with pytest.raises(ArtefactError, match=r"meta\.json is missing"):
        read_results(folder / "rows")
    write_results(folder / "rows", tables, {"title": "New", "statistics": []})
    assert read_results(folder / "rows").meta["title"] == "New"
    assert not (folder / "rows" / "exhibits.safetensors").exists()
