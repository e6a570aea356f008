"""The same bits whatever the executor, also when a worker of a cluster is killed in the middle."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Node
from benchmarks.work import executors
from benchmarks.work.executors import Dask, Inline, Processes, make_executor, open_executor, parse_executor
from benchmarks.work.schedule import Scheduler
from dbn_core.errors import SpecError
from tests.stress.figures import STRESS
from tests.stress.support import assert_same_rows, run, worker_processes, write_suite


def test_a_dask_cluster_of_two_processes_loses_one_and_gives_the_same_bits(
    undisturbed: tuple[Path, float], tmp_path: Path, tally: object
) -> None:
    from dask.distributed import LocalCluster

    clustered = tmp_path / "clustered"
    write_suite(clustered)
    killed: list[int] = []
    environment = {"OMP_NUM_THREADS": "1"}
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, env=environment) as cluster:
        first = {nanny.pid for nanny in cluster.workers.values()}
        assert len(first) == 2

        def kill_one() -> None:
            running = Store(clustered / "store").root / "running"
            while not list(running.glob("*.json")):
                time.sleep(0.01)
            killed.append(first.copy().pop())
            os.kill(killed[0], signal.SIGKILL)

        killer = threading.Thread(target=kill_one, daemon=True)
        killer.start()
        run(clustered, executor=cluster.scheduler_address.replace("tcp://", "dask://"))
        killer.join(5)
        assert killed
        assert {nanny.pid for nanny in cluster.workers.values()} != first
    assert_same_rows(clustered, undisturbed[0])
    tally("kills survived", good=1, of=1)  # type: ignore[operator]


def test_a_cluster_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "CONNECT_SECONDS", 0.5)
    with pytest.raises(SpecError, match="No Dask scheduler answers"):
        Dask("tcp://127.0.0.1:1")


@pytest.mark.parametrize("text", ["", "dask", "dask://", "ray", "tcp://host:1"])
def test_an_unknown_executor_is_one_sentence(text: str) -> None:
    with pytest.raises(SpecError, match="choose processes, inline or dask"):
        parse_executor(text)


def device_of_this_worker(seconds: float) -> str | None:
    from benchmarks.work import job as work

    time.sleep(seconds)  # so that both workers get one
    return work._DEVICE


def test_every_worker_has_a_device_of_its_own() -> None:
    executor = make_executor("processes", -1, 1, ("cuda:0", "cuda:1"))
    assert isinstance(executor, Processes)
    assert executor.slots() == 2
    futures = [executor.submit(device_of_this_worker, 1.0) for _ in range(2)]
    assert sorted(future.result() or "" for future in futures) == ["cuda:0", "cuda:1"]
    executor.shutdown()


def slow_node() -> str:
    time.sleep(0.05)
    return "made"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find the workers")
@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0] if STRESS else [0.01])
def test_a_worker_may_die_while_it_or_another_is_being_started(delay_s: float, tally: object) -> None:
    killed: list[int] = []

    def kill_the_first() -> None:
        while not killed:
            for child in worker_processes(os.getpid()):
                time.sleep(delay_s)
                os.kill(child, signal.SIGKILL)
                killed.append(child)
                break

    nodes = {name: Node("member", name, name, {}, (), {}) for name in "abcde"}
    with open_executor("processes", 2, 1) as where:
        killer = threading.Thread(target=kill_the_first, daemon=True)
        killer.start()
        scheduler = Scheduler(
            nodes, lambda executor, _: executor.submit(slow_node), where, lambda _: None, lambda *_: None
        )
        outcome = scheduler.run()
        killer.join(5)
    assert killed
    assert {made.key for made in outcome.made} == set(nodes)
    assert not outcome.failures
    tally("kills survived", good=1, of=1)  # type: ignore[operator]


class Deaf(ProcessPoolExecutor):
    """A pool that overlooks the death of its process: its futures stay open, whatever it is given."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        super().submit(fn, *args, **kwargs)
        return Future()


def test_a_future_left_open_by_a_dead_process_is_closed_and_its_work_done_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executors, "LOST_SECONDS", 0.2)
    others = set(active_children())
    context = multiprocessing.get_context("spawn")
    kinds = iter([Deaf, ProcessPoolExecutor])
    pools = Processes([lambda: next(kinds)(1, context)])
    lost = pools.submit(os._exit, 1)
    begun = time.monotonic()
    while not lost.done():
        assert time.monotonic() - begun < 60
        pools.check_workers()
        time.sleep(0.05)
    assert isinstance(lost.exception(), BrokenProcessPool)
    assert pools.submit(slow_node).result(60) == "made"
    pools.shutdown()
    for child in set(active_children()) - others:
        child.join(30)
    assert set(active_children()) <= others


def test_no_processes_means_this_one() -> None:
    assert isinstance(make_executor("processes", 0, 1), Inline)
    assert isinstance(make_executor("inline", 8, 1), Inline)
