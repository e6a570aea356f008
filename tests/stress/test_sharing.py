"""Two runs on one store share the work, and end with the bits of one; a cleaning waits for its turn."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.store.artefacts import Store
from benchmarks.store.storage import cleaning, collect, remove
from dbn_core.errors import StoreError
from tests.stress.support import assert_same_rows, rows, run, start, write_suite
from tests.support.tiny import DE, ED, HEAD


def test_two_runs_on_one_store_make_everything_once(
    undisturbed: tuple[Path, float], tmp_path: Path, tally: object
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        write_suite(folder)
    store = tmp_path / "shared"
    log = store.parent / "made.jsonl"
    processes = [start(folder, store=store, log_made=log) for folder in (first, second)]
    for process in processes:
        process.join(180)
        assert process.exitcode == 0
    for folder in (first, second):
        assert_same_rows(folder, undisturbed[0])
    made = [json.loads(line) for line in log.read_text().splitlines()]
    times = Counter(entry["key"] for entry in made)
    assert set(times.values()) == {1}, "an artefact was made twice"
    assert len({entry["pid"] for entry in made}) == 2, "one of the runs did nothing"
    kinds = ("member", "views", "part", "predictions", "cost")
    assert {key for kind in kinds for _, key in Store(store).artefacts(kind)} == set(times)
    tally("artefacts made once by two runs", good=len(times), of=len(times))  # type: ignore[operator]


def test_gc_leaves_a_live_run_alone(tmp_path: Path, tally: object) -> None:
    """Cleaning again and again, with nothing to keep, begins when the run has written its rows."""
    write_suite(tmp_path)
    store, refused = Store(tmp_path / "store"), 0
    process = start(tmp_path)
    while process.exitcode is None:
        try:
            with cleaning(store):
                assert (tmp_path / "rows" / "meta.json").is_file()
                remove(collect(store, []))
            break
        except StoreError:
            refused += 1
            time.sleep(0.02)
    process.join(600)
    assert process.exitcode == 0
    assert len(rows(tmp_path)["summary"]) == 4
    assert refused
    tally("cleanings refused during a run", good=refused, of=refused)  # type: ignore[operator]


def test_what_is_seen_late_is_waited_for_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system, whose clients look at a folder again only after a while."""
    looks: Counter[Path] = Counter()
    kinds = ("member", "part", "predictions", "cost")

    def unseen(path: Path) -> bool:
        if path.suffix != ".json" or path.parts[-3] not in kinds or not path.exists():
            return False
        looks[path] += 1
        return looks[path] <= 6

    def late_is_file(path: Path) -> bool:
        return not unseen(path) and is_file(path)

    def late_read(path: Path) -> bytes:
        if unseen(path):
            raise FileNotFoundError(2, "not seen yet", str(path))
        return read(path)

    is_file, read = Path.is_file, Path.read_bytes
    monkeypatch.setattr(Path, "is_file", late_is_file)
    monkeypatch.setattr(Path, "read_bytes", late_read)
    write_suite(tmp_path, HEAD + DE + ED)
    run(tmp_path, log_made=tmp_path / "made.jsonl")
    made = Counter(json.loads(line)["key"] for line in (tmp_path / "made.jsonl").read_text().splitlines())
    assert made == Counter(key for kind in kinds for _, key in Store(tmp_path / "store").own(kind))
