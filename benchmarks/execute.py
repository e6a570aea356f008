"""Run a plan: submit every node whose needs are met to a ``concurrent.futures`` executor, until none is left."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.plan import TRAINED, Node, Plan
from benchmarks.store import Store
from dbn_core.errors import BenchError


class InlineExecutor(Executor):
    """Runs each call at once in this process: for debugging, and for one large network that uses every core."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call ``fn`` and return a finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def make_executor(jobs: int, threads: int) -> Iterator[tuple[Executor, int]]:
    """An executor and the number of nodes it works on at once.

    Args:
        jobs: worker processes; 0 means this process, -1 one for each core.
        threads: torch threads of each process.
    """
    jobs = (os.cpu_count() or 1) if jobs < 0 else jobs
    if jobs == 0:
        yield InlineExecutor(), 1
        return
    from benchmarks.work import limit_threads

    # spawn: a forked child of a process that has used torch's thread pool can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=limit_threads, initargs=(threads,))
    try:
        yield pool, jobs
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class Outcome:
    """What came of a run."""

    made: list[Node] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # key -> reason
    seconds: float = 0.0


@dataclass(frozen=True)
class Event:
    """Progress: a node started or ended."""

    what: str  # "start", "done" or "failed"
    node: Node
    done: int
    total: int
    eta_s: float | None
    seconds: float = 0.0
    message: str = ""


class _Clock:
    """Estimates what is left from the mean duration of finished nodes of the same kind."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def add(self, node: Node, seconds: float) -> None:
        self.seconds.setdefault(self._group(node), []).append(seconds)

    def left(self, nodes: list[Node], jobs: int) -> float | None:
        every = [s for values in self.seconds.values() for s in values]
        if not every:
            return None
        total = 0.0
        for node in nodes:
            known = self.seconds.get(self._group(node)) or (every if node.kind in TRAINED else [0.2])
            total += sum(known) / len(known)
        return total / jobs

    @staticmethod
    def _group(node: Node) -> str:
        return node.recipe["method"] + node.recipe["part"].split("-")[0] if node.kind == "part" else node.kind


def missing_nodes(plan: Plan, store: Store, targets: set[str]) -> dict[str, Node]:
    """Nodes to make: the targets that the store lacks, and what making them needs.

    A finished prediction needs none of its members, so a store without members still reports.
    """
    wanted: dict[str, Node] = {}
    open_ = [key for key in plan.nodes if key in targets and plan.nodes[key].kind not in TRAINED]
    while open_:
        node = plan.nodes[open_.pop()]
        if node.key not in wanted and not store.has(node.kind, node.key):
            wanted[node.key] = node
            open_ += [key for _, key in node.needs]
    return {key: node for key, node in plan.nodes.items() if key in wanted}


def run_nodes(
    nodes: dict[str, Node],
    submit: Callable[[Executor, Node], Future[Any]],
    executor: Executor,
    jobs: int,
    report: Callable[[Event], None],
    keep_trace: Callable[[Node, BaseException], None],
) -> Outcome:
    """Make ``nodes`` in dependency order; a failed node fails what needs it, and nothing else.

    Args:
        nodes: to make, by key; whatever they need besides is in the store.
        submit: submits one node to the executor.
        jobs: how many nodes are under way at once.
        report: called for every start and end.
        keep_trace: called with the error of every node that failed by itself.
    """
    outcome, clock = Outcome(), _Clock()
    begun = time.monotonic()
    waiting, height = dict(nodes), _heights(nodes)
    running: dict[Future[Any], tuple[Node, float]] = {}

    def tell(what: str, node: Node, seconds: float = 0.0, message: str = "") -> None:
        left = [*waiting.values(), *(node for node, _ in running.values())]
        done = len(nodes) - len(left)
        report(Event(what, node, done, len(nodes), clock.left(left, jobs), seconds, message))

    while waiting or running:
        for node in [n for n in waiting.values() if any(need in outcome.failures for _, need in n.needs)]:
            del waiting[node.key]
            cause = next(need for _, need in node.needs if need in outcome.failures)
            outcome.failures[node.key] = f"needs {nodes[cause].title}, which failed"
            tell("failed", node, message=outcome.failures[node.key])
        unfinished = {*waiting, *(node.key for node, _ in running.values())}
        ready = [n for n in waiting.values() if not any(need in unfinished for _, need in n.needs)]
        # Longest chains first, so that no worker is left with a long tail at the end.
        for node in sorted(ready, key=lambda n: -height[n.key])[: jobs - len(running)]:
            del waiting[node.key]
            tell("start", node)
            now = time.monotonic()
            running[submit(executor, node)] = node, now
        if not running:
            continue
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            node, since = running.pop(future)
            seconds, error = time.monotonic() - since, future.exception()
            if error is None:
                outcome.made.append(node)
                clock.add(node, seconds)
                tell("done", node, seconds)
            else:
                outcome.failures[node.key] = describe(error)
                keep_trace(node, error)
                tell("failed", node, seconds, outcome.failures[node.key])
    outcome.seconds = time.monotonic() - begun
    return outcome


def describe(error: BaseException) -> str:
    """One sentence for a person: our errors as they are, others with their type."""
    if isinstance(error, BenchError):
        return str(error)
    return f"{type(error).__name__}: {error} (the full trace is in failures.log of the store)"


def _heights(nodes: dict[str, Node]) -> dict[str, int]:
    """Length of the longest chain of nodes that wait for each node."""
    height = dict.fromkeys(nodes, 0)
    for key in reversed(nodes):
        for _, need in nodes[key].needs:
            if need in height:
                height[need] = max(height[need], height[key] + 1)
    return height
