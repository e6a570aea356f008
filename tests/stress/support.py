"""A suite of seconds, and ways to run it, kill it and damage what it leaves behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

SUITE = """
title = "Stress"
repetitions = 2
[data]
source = "digits"
test_fraction = 0.8
[network]
name = "resnet8"
channels = 4
width = 1.0
[pool]
members = 3
sharing = "shared"
[recipe]
epochs = 4
batch_size = 32
crop_pad = 1
[students]
epochs = 4
teachers = "views(2)"
[latency]
repeats = 3
batch_repeats = 3
batch = 8
[[methods]]
use = "de"
sizes = [1, 2]
[[methods]]
use = "dbn[members_per_bridge=2,score_network=mini]"
sizes = [2]
[[methods]]
use = "ed"
sizes = [2]
teachers = "online"
"""

# Children are forked from a process that has imported everything, so that a kill costs no start-up.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["benchmarks.run", "benchmarks.work.worker", "benchmarks.report.figures.figures", "baselines.dbn"]
)


def write_suite(folder: Path, text: str = SUITE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "stress.toml"
    path.write_text(text)
    return path


def run(folder: Path, kill_at_write: int = 0, log_made: Path | None = None, **options: Any) -> None:
    """Run the suite of a folder in this process; trainings write checkpoints all the time, and no figure is drawn.

    ``kill_at_write`` kills the process while it writes its n-th file: the bytes are out, the name is not there yet.
    ``log_made`` gets a line for every artefact that this process made.
    """
    import torch

    import dbn_core.files
    import dbn_core.train.loop as loop
    from benchmarks.run import run_suite
    from benchmarks.suite.load import load_suite
    from benchmarks.work.make import Options
    from tests.support.sketches import sketches

    torch.set_num_threads(1)
    loop.CHECKPOINT_SECONDS = loop.MONITOR_SECONDS = 0.0
    writes, sync = [0], os.fsync

    def fsync(handle: int) -> None:
        writes[0] += 1
        if writes[0] == kill_at_write:
            os.kill(os.getpid(), signal.SIGKILL)
        if not kill_at_write:
            return  # the tests kill processes, not machines: nothing needs to reach the disk
        sync(handle)

    dbn_core.files.os.fsync = fsync  # type: ignore[assignment]
    places = {"store": folder / "store", "rows": folder / "rows", "reports": folder / "reports"}
    options = {"jobs": 0, "device": "cpu", **places, **options}
    suite = load_suite(str(folder / "stress.toml"))
    with sketches():
        result = run_suite(suite, Options(**options), lambda event: None)
    if log_made is not None:
        with log_made.open("a") as file:
            for node in result.outcome.made:
                file.write(json.dumps({"key": node.key, "pid": os.getpid()}) + "\n")
    if result.failures:
        raise SystemExit(f"failed: {result.failures}")


def start(folder: Path, **options: Any) -> Any:
    """The same in a process of its own, which is returned running."""
    return start_process(run, folder, **options)


def start_process(target: Callable[..., None], *args: Any, **options: Any) -> Any:
    """A function in a process of its own, which is returned running."""
    process = _CONTEXT.Process(target=target, args=args, kwargs=options)
    process.start()
    return process


def finish(folder: Path, **options: Any) -> None:
    process = start(folder, **options)
    process.join(120)
    assert process.exitcode == 0


def rows(folder: Path) -> dict[str, pd.DataFrame]:
    """The result tables without what a clock measured."""
    tables = {name: pd.read_csv(folder / "rows" / f"{name}.csv") for name in ("rows", "summary", "comparisons")}
    summary = tables["summary"]
    clock = [c for c in summary if c.startswith(("train_seconds", "latency", "throughput"))]
    return tables | {"summary": summary.drop(columns=clock)}


def assert_same_rows(folder: Path, reference: Path) -> None:
    for name, frame in rows(reference).items():
        pd.testing.assert_frame_equal(rows(folder)[name], frame, check_exact=True)


def worker_processes(pid: int) -> list[int]:
    """The worker processes of a run, oldest first (Linux)."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread, or a worker, that ended just now
            children = task.read_text().split()
            found += [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return found
