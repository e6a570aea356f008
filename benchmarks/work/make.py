"""Make what a plan needs and the store lacks: choose cells, start an executor, stop cleanly."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.store.artefacts import Store
from benchmarks.store.released import released_suites
from benchmarks.suite.names import cells_of_method
from benchmarks.suite.plan import Cell, Node, Plan
from benchmarks.suite.schema import Suite
from benchmarks.work.estimate import announce, node_work
from benchmarks.work.executors import cuda_devices, open_executor
from benchmarks.work.planning import edited_plugins, wait_until_seen
from benchmarks.work.preflight import check_networks
from benchmarks.work.run_status import RunHandle, new_run, request_stop, time_limit, write_record
from benchmarks.work.schedule import Event, Outcome, Scheduler, missing_nodes, needs_failed
from dbn_core.errors import InterruptedRunError, SpecError, StoreError, did_you_mean
from dbn_core.files import atomic_write
from dbn_core.methods.registry import loaded


@dataclass(frozen=True)
class Options:
    """Where and how a suite runs.

    Attributes:
        rows: folder of the result rows; None: ``results/runs/<suite>``.
        executor, jobs, threads: see :func:`benchmarks.work.executors.make_executor`.
        only: method names, labels, specs or patterns of them: only their artefacts are made.  None: all; empty: none,
            and stored results are analysed again.
        max_seconds: stop and report after this time; None: never.
        tensorboard: folder for event files of the trainings; None: none.
        released: folder of released results, a folder each suite (:mod:`benchmarks.store.released`); None: none.
        source: where the suite comes from (:func:`benchmarks.store.rows.source_of`), written with its rows.
        lite: whether this only tries methods (:mod:`benchmarks.suite.lite`): nothing is timed or ranked.
        time_again: measure all latencies, stored and released ones as well.
    """

    store: Path = Path("results/store")
    rows: Path | None = None
    reports: Path = Path("reports/runs")
    executor: str = "processes"
    jobs: int = -1
    threads: int = 1
    device: str = "auto"
    plugins: Sequence[str] = ()
    only: Sequence[str] | None = None
    max_seconds: float | None = None
    tensorboard: Path | None = None
    command: str = ""
    released: Path | None = None
    source: str = ""
    lite: bool = False
    time_again: bool = False

    def open_store(self) -> Store:
        """The store, which reads through to what is released."""
        return Store(self.store, released_suites(self.released))

    @property
    def processes(self) -> int:
        """Worker processes for an estimate; one for a remote cluster, whose size is unknown."""
        if self.executor.startswith("dask://"):
            return 1
        return 0 if self.executor == "inline" else self.jobs

    def rows_of(self, suite: Suite) -> Path:
        """Folder of the suite's result rows."""
        return self.rows or Path("results/runs") / suite.name


def select_cells(plan: Plan, only: Sequence[str] | None) -> list[Cell]:
    """The cells whose method name, label or spec matches a pattern, ignoring case; all for None.

    Raises:
        SpecError: a pattern matches nothing.
    """
    if only is None:
        return plan.cells
    chosen: set[int] = set()
    for pattern in only:
        found = cells_of_method(plan.cells, pattern)
        if not found:
            labels = {cell.label for cell in plan.cells} | {cell.method.name for cell in plan.cells}
            hint = did_you_mean(pattern, labels)
            raise SpecError(f"--only {pattern}: the suite has no such method{hint}; --add METHOD@SIZE adds one.")
        chosen |= {id(cell) for cell in found}
    return [cell for cell in plan.cells if id(cell) in chosen]


def make_artefacts(
    plan: Plan, store: Store, targets: set[str], options: Options, report: Callable[[str | Event], None]
) -> Outcome:
    """Make ``targets`` and what they need, where the store lacks them; damaged artefacts are made again."""
    whole, failed = Outcome(), dict[str, str]()
    for line in edited_plugins(plan, store):
        report(line)
    for attempt in range(3):  # artefacts can be damaged during a run; give up after three attempts
        known = len(store.damaged)
        nodes = missing_nodes(plan, store, targets)
        for key, node in list(nodes.items()):  # a training that failed would fail again
            if key not in failed and (cause := next((need for _, need in node.needs if need in failed), None)):
                failed[key] = needs_failed(plan.nodes[cause])
            if key in failed:
                del nodes[key]
        for damage in store.damaged[known:]:
            report(f"{damage}: it is made again.")
        if not nodes:
            break
        if not attempt:
            check_networks(plan.suite, plan.data)
        if sentence := announce(plan, nodes, options.processes, options.threads, options.device):
            report(sentence)
        outcome = _make(plan, store, nodes, options, report)
        wait_until_seen(store, ((node.kind, node.key) for node in outcome.made))
        whole.made += outcome.made
        whole.seconds += outcome.seconds
        whole.failures, whole.left = failed | outcome.failures, outcome.left
        failed |= {key: outcome.failures[key] for key in outcome.final}
        if not outcome.damaged:
            break
    return whole


def _make(
    plan: Plan, store: Store, nodes: dict[str, Node], options: Options, report: Callable[[str | Event], None]
) -> Outcome:
    from benchmarks.work.job import Job, run_node

    handle = new_run(plan.suite.name, options.store, options.tensorboard)
    try:
        atomic_write(handle.record, b"{}")
    except StoreError as error:  # stored results can still be reported
        return Outcome(failures=dict.fromkeys(nodes, str(error)))
    job = Job(
        _portable(plan.suite).model_dump_json(),
        options.device,
        tuple(loaded(options.plugins).items()),
        options.threads,
        handle,
        tuple(str(layer.folder.resolve()) for layer in store.released),
    )

    def submit(executor: Executor, node: Node) -> Future[str]:
        made = tuple(need for need in node.needs if need[1] in nodes)
        return executor.submit(run_node, job, node, made)

    def keep_trace(node: Node, error: BaseException) -> None:
        log = options.store / "failures.log"
        with suppress(OSError), log.open("a", encoding="utf-8") as file:
            file.write(f"--- {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {plan.suite.name}: {node.title}\n")
            file.write("".join(traceback.format_exception(error)))

    def tell(event: Event) -> None:
        state = "stopping" if handle.stopping() else "running"
        counts = {"done": event.done, "total": event.total, "eta_s": event.eta_s}
        write_record(handle, suite=plan.suite.name, state=state, **counts)
        report(event)

    state = "failed"
    try:
        devices = () if options.device == "cpu" else cuda_devices(options.device)
        with (
            stop_on_signal(handle) as signals,
            time_limit(handle, options.max_seconds),
            open_executor(options.executor, options.jobs, options.threads, devices) as where,
        ):
            work = {key: node_work(plan, node).forward for key, node in nodes.items()}
            scheduler = Scheduler(nodes, submit, where, tell, keep_trace, handle.stopping, work)
            outcome = scheduler.run()
            if signals:
                raise InterruptedRunError("Stopped. Finished artefacts are stored; the same command continues.")
        state = "out of time" if outcome.left else "ended"
    except (InterruptedRunError, KeyboardInterrupt):
        state = "stopped"
        raise
    finally:
        write_record(handle, suite=plan.suite.name, state=state)
        handle.stop.unlink(missing_ok=True)
    return outcome


def _portable(suite: Suite) -> Suite:
    """The suite with an absolute path to its data, since workers may have another working folder."""
    root = getattr(suite.data, "root", None)
    if root is None:
        return suite
    return suite.model_copy(update={"data": suite.data.model_copy(update={"root": root.expanduser().resolve()})})


@contextmanager
def stop_on_signal(handle: RunHandle) -> Iterator[list[int]]:
    """The first Ctrl-C or SIGTERM stops a run cleanly, the second at once; yields the signals received so far."""
    received: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        request_stop(handle)

    if threading.current_thread() is not threading.main_thread():
        yield received  # signals reach the main thread alone
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
