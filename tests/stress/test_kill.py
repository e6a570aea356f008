"""A run that is killed at any moment goes on, and ends with the same bits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.store.artefacts import Store
from tests.stress.figures import STRESS
from tests.stress.support import SUITE, assert_same_rows, finish, start, start_process, worker_processes, write_suite
from tests.support.command import DbnBench


def kill(process: object, after_s: float) -> bool:
    """Whether the process was still running when it was killed."""
    process.join(after_s)  # type: ignore[attr-defined]
    alive = process.exitcode is None  # type: ignore[attr-defined]
    if alive:
        os.kill(process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        process.join()  # type: ignore[attr-defined]
    return alive


@pytest.mark.parametrize("kills", [10 if STRESS else 2])
def test_killed_at_random_moments(undisturbed: tuple[Path, float], tmp_path: Path, kills: int, tally: object) -> None:
    reference, seconds = undisturbed
    write_suite(tmp_path)
    rng, killed, resumed = np.random.default_rng(0), 0, 0
    while killed < kills:
        if kill(start(tmp_path), float(rng.uniform(0.05, 0.6)) * seconds):
            killed += 1
            resumed += bool(list((tmp_path / "store" / "checkpoints").glob("*")))
        else:  # it came to its end: begin anew
            assert_same_rows(tmp_path, reference)
            shutil.rmtree(tmp_path / "store")
    finish(tmp_path)
    assert_same_rows(tmp_path, reference)
    assert not list((tmp_path / "store" / "checkpoints").glob("*"))
    if STRESS:
        assert resumed, "no kill came in the middle of a training"
    tally("kills survived", good=kills, of=kills)  # type: ignore[operator]


@pytest.mark.parametrize("kills", [10 if STRESS else 1])
def test_killed_in_the_middle_of_a_write(
    undisturbed: tuple[Path, float], tmp_path: Path, kills: int, tally: object
) -> None:
    reference, _ = undisturbed
    write_suite(tmp_path)
    rng, killed = np.random.default_rng(1), 0
    while killed < kills:
        process = start(tmp_path, kill_at_write=int(rng.integers(1, 40)))
        process.join(120)
        if process.exitcode == -signal.SIGKILL:
            killed += 1
        else:  # it needed fewer writes than that
            assert process.exitcode == 0
            assert_same_rows(tmp_path, reference)
            shutil.rmtree(tmp_path / "store")
    assert list(tmp_path.rglob(".*.tmp")), "the kill was to leave a half-written file behind"
    finish(tmp_path)
    assert_same_rows(tmp_path, reference)
    tally("kills survived", good=kills, of=kills)  # type: ignore[operator]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.stress.figures import STRESS
from tests.stress.support import run
if __name__ == "__main__":
    run(Path(sys.argv[2]), jobs=2)
"""


def wait_for(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find the workers")
def test_a_killed_worker_and_a_killed_run_with_workers(
    undisturbed: tuple[Path, float], tmp_path: Path, tally: object
) -> None:
    """A worker that dies does not end the run; workers of a run that dies end with it, and free their locks."""
    reference, _ = undisturbed
    write_suite(tmp_path)
    store = Store(tmp_path / "store")

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, str(Path(__file__).parents[2]), str(tmp_path)])

    def under_way() -> bool:
        return bool(list((store.root / "running").glob("*.json")))

    process = begin()
    wait_for(lambda: under_way() and worker_processes(process.pid))
    victims = worker_processes(process.pid)
    process.kill()  # the run dies, with its workers in the middle of trainings
    process.wait()
    wait_for(lambda: not any(Path(f"/proc/{victim}").is_dir() for victim in victims), 10)
    for record in (store.root / "running").glob("*.json"):  # the dead run's
        record.unlink()
    process = begin()
    wait_for(lambda: under_way() and worker_processes(process.pid))
    os.kill(worker_processes(process.pid)[0], signal.SIGKILL)
    try:
        assert process.wait(120) == 0
    finally:
        process.kill()
    assert_same_rows(tmp_path, reference)
    tally("kills survived", good=2, of=2)  # type: ignore[operator]


@pytest.mark.usefixtures("clean_registry")
def test_a_node_that_kills_its_worker_fails_alone(tmp_path: Path, dbn_bench: DbnBench) -> None:
    """The others finish, the exit code tells, and the reason is in the report."""
    plugin = tmp_path / "deadly.py"
    plugin.write_text(
        "import os, signal\n"
        "from dbn_core import Method, Part, register\n"
        "@register('deadly')\n"
        "class Deadly(Method):\n"
        "    'Kills whoever trains it.'\n"
        "    def parts(self, size): return [Part('part')]\n"
        "    def fit(self, part, context): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    def predictor(self, size, context): raise NotImplementedError\n"
    )
    head = (
        SUITE.split("[[methods]]")[0].replace("repetitions = 2", "repetitions = 1").replace("epochs = 4", "epochs = 1")
    )
    text = head + '[[methods]]\nuse = "de"\nsizes = [1]\n[[methods]]\nuse = "deadly"\nsizes = [1]\n'
    suite = write_suite(tmp_path, text)
    places = [f"--{name}={tmp_path / name}" for name in ("store", "rows", "reports")]
    done = dbn_bench("run", suite, *places, f"--plugin={plugin}", "--jobs=2")
    assert done.code == 1
    assert "its worker process died" in done.err
    assert "its worker process died" in (tmp_path / "reports" / "stress" / "report.md").read_text()


def _render(rows: Path, out: Path) -> None:
    from benchmarks.report import render

    render(rows, out)


@pytest.mark.parametrize("kills", [6 if STRESS else 1])
def test_a_report_that_is_killed_leaves_each_file_old_or_new(
    undisturbed: tuple[Path, float], tmp_path: Path, kills: int, tally: object
) -> None:
    """Every file that has its name is whole; what is rendered afterwards is what nobody disturbed."""
    reference, _ = undisturbed
    rows, whole, killed_in = reference / "rows", tmp_path / "whole", tmp_path / "killed"
    started = time.monotonic()
    finished = start_process(_render, rows, whole)
    finished.join(240)
    assert finished.exitcode == 0
    seconds, rng = time.monotonic() - started, np.random.default_rng(1)
    expected = {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    survived = 0
    while survived < kills:
        shutil.rmtree(killed_in, ignore_errors=True)
        if kill(start_process(_render, rows, killed_in), float(rng.uniform(0.1, 0.9)) * seconds):
            survived += 1
            for path in killed_in.rglob("*"):
                if path.is_file() and not path.name.startswith("."):
                    assert path.read_bytes() == expected[path.relative_to(killed_in)], path.name
    last = start_process(_render, rows, killed_in)
    last.join(240)
    assert last.exitcode == 0
    found = {path.relative_to(killed_in) for path in killed_in.rglob("*") if path.is_file()}
    assert {path for path in expected if not path.name.startswith(".")} <= found
    tally("kills of a report survived", good=kills, of=kills)  # type: ignore[operator]
