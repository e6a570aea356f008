"""What a person at the terminal sees and does: plan, progress, status, stopping, TensorBoard, completion."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Node
from benchmarks.work.progress import Reporter
from benchmarks.work.run_status import (
    NodeMonitor,
    RunHandle,
    new_run,
    request_stop,
    running,
    runs,
    time_limit,
    watched,
    write_record,
)
from benchmarks.work.schedule import Event
from dbn_core.train.monitor import Progress
from tests.support import tiny
from tests.support.command import DbnBench

ROOT = Path(__file__).resolve().parents[3]
SUITE = tiny.HEAD.replace("[recipe]\nepochs = 1", "[recipe]\nepochs = EPOCHS") + tiny.DE + tiny.TS


def write(folder: Path, epochs: int = 1) -> Path:
    (folder / "terminal.toml").write_text(SUITE.replace("EPOCHS", str(epochs)))
    return folder / "terminal.toml"


def words(folder: Path) -> list[str]:
    return [f"--{name}={folder / name}" for name in ("store", "rows", "reports")]


def test_a_dry_run_shows_the_plan_and_makes_nothing(tmp_path: Path, dbn_bench: DbnBench) -> None:
    said = dbn_bench("run", write(tmp_path), *words(tmp_path), "--dry-run", "--jobs=1")
    assert said.code == 0
    assert re.search(r"DE +1 2 +1 +2 *\n", said.out)
    assert re.search(r"member +2 +2 *\n", said.out)
    assert "Training 2 members and 1 part" in said.out
    assert not list((tmp_path / "store").glob("member"))
    assert not (tmp_path / "rows").exists()


def test_a_run_may_be_of_some_methods_or_end_in_time_and_the_next_one_goes_on(
    tmp_path: Path, dbn_bench: DbnBench
) -> None:
    tail = [write(tmp_path), *words(tmp_path), "--jobs=0"]
    assert dbn_bench("run", *tail, "--only=DE", f"--tensorboard={tmp_path / 'events'}").code == 0
    assert set(pd.read_csv(tmp_path / "rows" / "summary.csv").family) == {"de"}
    assert "Not made in this run" in (tmp_path / "reports" / "terminal" / "report.md").read_text()
    check_events(tmp_path / "events")
    assert "--only tz: the suite has no such method (" in dbn_bench("run", *tail, "--only=tz").err
    code, _, error = dbn_bench("run", *tail, "--max-time=0.0001s")
    assert (code, "run the same command again" in error) == (3, True)
    assert set(pd.read_csv(tmp_path / "rows" / "summary.csv").family) == {"de"}
    assert dbn_bench("run", *tail).code == 0
    assert set(pd.read_csv(tmp_path / "rows" / "summary.csv").family) == {"de", "ts"}
    assert "missing below" not in (tmp_path / "reports" / "terminal" / "report.md").read_text()
    write(tmp_path, epochs=2)  # other members: nothing at all could be measured
    code, _, error = dbn_bench("run", *tail, "--max-time=0.0001s")
    assert (code, "left out of this run, or its time was up" in error) == (1, True)
    code, _, error = dbn_bench("run", *tail, "--max-time=soon")
    assert (code, "--max-time soon" in error) == (1, True)


def check_events(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = sorted(folder.iterdir())
    assert [re.sub(r" \w{8}$", "", path.name) for path in found] == ["member 1 of pool 1", "member 2 of pool 1"]
    events = EventAccumulator(str(found[0]))
    events.Reload()
    assert {"loss", "learning_rate"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [1]


@pytest.mark.slow
def test_ctrl_c_stops_in_good_order_and_status_tells_meanwhile(tmp_path: Path, dbn_bench: DbnBench) -> None:
    """A long training with two workers: seen from another process, stopped by SIGINT to the whole process group."""
    suite, store = write(tmp_path, epochs=500), Store(tmp_path / "store")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "benchmarks.cli", "run", str(suite), *words(tmp_path), "--jobs=2"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 300
        while not any("loss" in value for value in running(store)):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.1)
        seen = next(value for value in running(store) if "loss" in value)
        assert seen["title"].startswith("member ")
        assert seen["epochs"] == 500
        record = runs(store)[-1]
        assert (record["suite"], record["state"]) == ("terminal", "running")
        said = dbn_bench("status", suite, f"--store={store.root}").out
        assert f"(process {process.pid}): 0 of " in said
        assert re.search(r"member \d of pool 1 +\d+/500 +\d\.\d", said)
    finally:
        os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    text = (tmp_path / "log").read_text()
    assert "the same command continues" in text
    assert "Traceback" not in text
    assert len(list((store.root / "checkpoints").glob("*"))) == 2
    assert not running(store)
    assert runs(store)[-1]["state"] == "stopped"
    assert not list((store.root / "runs").glob("*.stop"))
    assert "The last run stopped, 0:" in dbn_bench("status", suite, f"--store={store.root}").out


def test_completion_knows_suites_and_methods() -> None:
    variables = {"_DBN_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": "dbn-bench show d", "COMP_CWORD": "2"}
    code = "import sys; sys.argv = ['dbn-bench']; from benchmarks.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=True
    )
    assert {"dbn", "de", "direct"} <= set(done.stdout.split())


# ------------------------------------------------------------------------------------------------- pieces of the screen


def node(title: str = "member 1 of pool 1", kind: str = "member") -> Node:
    return Node(kind, "ab" * 20, title, {}, (), {})


def told(tmp_path: Path, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    handle = RunHandle("run", str(tmp_path))
    with Reporter(console, tmp_path) as reporter, watched(handle, node().key, node().title) as monitor:
        reporter("Looking")
        reporter(Event("start", node(), 0, 2, None))
        monitor.update(Progress("x", 3, 10, 0.35, 0.71828, 0.1))
        monitor.update(Progress("x", 4, 10, 0.4, 0.5, 0.1, True, {"acc": 0.875, "nll": 0.4}))
        reporter(Event("tick", None, 0, 2, 7.0))
        reporter(Event("failed", node("a student", "part"), 1, 2, None, 1.0, "it exploded"))
        reporter(Event("done", node(), 2, 2, 0.0, 61.0))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_shows_what_is_under_way(tmp_path: Path) -> None:
    text = told(tmp_path, terminal=True)
    for piece in ("4/10", "0.500", "87.5%", "member 1 of pool 1", "FAILED", "a student: it exploded", "2/2"):
        assert piece in text


def test_a_log_has_plain_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.work.progress._UNDER_WAY_SECONDS", -1.0)
    text = told(tmp_path, terminal=False)
    assert "\x1b" not in text
    assert "... member 1 of pool 1: epoch 4/10, loss 0.500, validation accuracy 87.5%" in text
    assert "2/2  member 1 of pool 1  61.0 s" in text
    assert "FAILED  a student: it exploded" in text


def test_the_time_left_is_what_this_process_still_needs(tmp_path: Path) -> None:
    monitor = NodeMonitor(RunHandle("run", str(tmp_path)), node().key, "x")
    monitor._begun -= 10.0
    monitor.update(Progress("x", 5, 10, 0.5, 1.0, 0.1))  # resumed half way: nothing known of the pace yet
    monitor.update(Progress("x", 6, 10, 0.6, 1.0, 0.1))
    from benchmarks.work.run_status import progress_of

    assert progress_of(tmp_path, node().key)["left_s"] == pytest.approx(40, rel=0.05)


def test_a_run_that_died_is_not_running(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handle = new_run("x", tmp_path)
    NodeMonitor(handle, node().key, "x").write()  # and then killed: nobody holds the lock
    assert running(store) == []
    with store.locked(node().key):
        assert [value["title"] for value in running(Store(tmp_path))] == ["x"]


def test_a_time_limit_does_not_depend_on_the_clocks_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 0.0)  # a clock that was set back, and stands still
    handle = new_run("x", tmp_path)
    with time_limit(handle, 0.05):
        end = time.monotonic() + 30
        while not RunHandle(**vars(handle)).stopping():
            assert time.monotonic() < end
            time.sleep(0.01)
    other = new_run("y", tmp_path)
    with time_limit(other, 3600):
        pass
    with time_limit(other, None):
        assert not other.stopping()


@pytest.mark.parametrize("title", ["é" * 300, "a\0b", "../../x\ny"])
def test_event_files_are_written_for_any_title(tmp_path: Path, title: str) -> None:
    handle = new_run("run", tmp_path, tmp_path / "events")
    with watched(handle, node().key, title) as monitor:
        monitor.update(Progress("x", 1, 2, 0.5, 1.0, 0.1, True))
    (folder,) = (tmp_path / "events").iterdir()
    assert list(folder.glob("events.out.tfevents*"))


def test_trouble_with_event_files_fails_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    handle = new_run("run", tmp_path, tmp_path / "file" / "events")
    with watched(handle, node().key, "x") as monitor:
        for epoch in (1, 2):
            monitor.update(Progress("x", epoch, 2, 0.5, 1.0, 0.1, True))
    assert len([record for record in caplog.records if "No event files of x" in record.message]) == 1


def test_hints_never_fail_a_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    handle = RunHandle("run", str(tmp_path / "file"))
    with watched(handle, node().key, "x") as monitor:
        monitor.update(Progress("x", 1, 2, 0.5, 1.0, 0.1))
    write_record(handle, state="running")
    request_stop(handle)
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / "broken.json").write_text("{")
    assert running(Store(tmp_path)) == []


def test_signals_are_given_back(tmp_path: Path) -> None:
    from benchmarks.work.make import stop_on_signal

    before = signal.getsignal(signal.SIGINT)
    with stop_on_signal(new_run("x", tmp_path)) as came:
        os.kill(os.getpid(), signal.SIGTERM)
        assert came == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    thread_saw: list[list[int]] = []

    def elsewhere() -> None:
        with stop_on_signal(new_run("x", tmp_path)) as none:
            thread_saw.append(none)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert thread_saw == [[]]
