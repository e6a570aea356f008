"""A disk that is full, a store that cannot be written, an artefact damaged in the middle: the rest is not lost."""

from __future__ import annotations

import errno
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.run import RunResult, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.work.make import Options
from benchmarks.work.schedule import Event
from tests.support import tiny
from tests.support.tiny import ED, TS

pytestmark = pytest.mark.slow
DE = tiny.HEAD + tiny.DE


def go(folder: Path, text: str, report: Callable[[str | Event], None] = lambda event: None) -> RunResult:
    (folder / "failures.toml").write_text(text)
    places = {"store": folder / "store", "rows": folder / "rows", "reports": folder / "reports"}
    return run_suite(load_suite(str(folder / "failures.toml")), Options(jobs=0, device="cpu", **places), report)


def families(folder: Path) -> set[str]:
    return set(pd.read_csv(folder / "rows" / "summary.csv").family)


def refuse_writes(monkeypatch: pytest.MonkeyPatch, below: Path, code: int) -> None:
    """The operating system's error for every new file below a folder."""
    make = tempfile.mkstemp

    def mkstemp(*, dir: Path, **options: str) -> tuple[int, str]:
        if Path(dir).is_relative_to(below):
            raise OSError(code, os.strerror(code))
        return make(dir=dir, **options)

    monkeypatch.setattr("dbn_core.files.tempfile.mkstemp", mkstemp)


def test_a_full_disk_fails_one_cell_and_the_others_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        refuse_writes(patch, tmp_path / "store" / "part", errno.ENOSPC)
        result = go(tmp_path, DE + ED)
    reasons = [failure["reason"] for failure in result.failures]
    assert any("No space left on device: free space there" in reason for reason in reasons)
    assert any("which failed" in reason for reason in reasons)  # the predictions that needed the student
    assert families(tmp_path) == {"de"}
    assert "No space left on device" in (tmp_path / "reports" / "failures" / "report.md").read_text()
    assert not go(tmp_path, DE + ED).failures  # nothing of the failure was stored
    assert families(tmp_path) == {"de", "ed"}


def test_a_store_that_cannot_be_written_is_still_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(tmp_path, DE)
    with monkeypatch.context() as patch:
        refuse_writes(patch, tmp_path / "store", errno.EROFS)
        assert not go(tmp_path, DE).failures  # complete: nothing needs to be written
        result = go(tmp_path, DE + TS)
    assert {f["reason"] for f in result.failures if f["cell"] != "latency"} == {result.failures[0]["reason"]}
    assert "Read-only file system" in result.failures[0]["reason"]
    assert families(tmp_path) == {"de"}


def test_a_disk_that_is_full_everywhere_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operating system itself refuses files above a size, for the report too."""
    from benchmarks.cli import main

    go(tmp_path, DE)
    words = [f"--{name}={tmp_path / name}" for name in ("store", "rows", "reports")]
    monkeypatch.setattr(sys, "argv", ["dbn-bench", "run", str(tmp_path / "failures.toml"), *words, "--jobs=0"])
    # Python would keep what it compiles of a module imported here, cut off at the limit, for every later process.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert end.value.code == 1
    said = capsys.readouterr()
    assert "File too large" in said.err
    assert "Traceback" not in said.err + said.out


def test_an_artefact_damaged_in_the_middle_of_a_run_is_made_again(tmp_path: Path) -> None:
    """A member is damaged after the run has checked it, before a student reads it."""
    go(tmp_path, DE)
    store, said = Store(tmp_path / "store"), []

    def report(event: str | Event) -> None:
        said.append(event)
        if isinstance(event, Event) and event.what == "start" and event.node and event.node.kind == "part":
            damaged = [s for s in said if isinstance(s, Event) and s.what == "failed"]
            if not damaged:
                path = store.tensors_path("member", event.node.payload["members"][0])
                path.write_bytes(path.read_bytes()[:-1] + b"!")

    result = go(tmp_path, DE + ED, report)
    assert not result.failures
    assert sorted(node.kind for node in result.outcome.made) == ["cost", "member", "part", "predictions"]
    assert families(tmp_path) == {"de", "ed"}


def test_too_little_memory_is_a_reason_and_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("benchmarks.work.worker.ArtefactBuilder._fit_part", explode)
    result = go(tmp_path, DE + TS)
    assert "out of memory: use fewer processes" in result.failures[0]["reason"]
    assert families(tmp_path) == {"de"}
