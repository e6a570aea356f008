"""Run a plan: submit each node to an executor as soon as all that it needs exists."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass, field

from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import TRAINED, Node, Plan
from benchmarks.work.executors import Workers
from benchmarks.work.order import Ready
from dbn_core.errors import ArtefactError, BenchError, TrainingStoppedError

# How often the screen and the record of the run are updated, and a request to stop is checked.
TICK_SECONDS = 0.5
# How long workers may take to write their checkpoints after a request to stop.
GRACE_SECONDS = 20.0
# How long to wait for a node that another run is making, at first and at most.
BUSY_SECONDS = (0.5, 15.0)


@dataclass
class Outcome:
    """Result of making the nodes of a plan."""

    made: list[Node] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # key -> reason
    left: list[Node] = field(default_factory=list)  # not started, or stopped before the end
    final: set[str] = field(default_factory=set)  # keys that failed and would fail again
    damaged: bool = False  # whether a failure was due to a damaged or missing artefact
    seconds: float = 0.0


@dataclass(frozen=True)
class Event:
    """Progress: a node started, ended, or is being made by another run, or time passed (``tick``)."""

    what: str  # "start", "done", "failed", "busy" or "tick"
    node: Node | None
    done: int
    total: int
    eta_s: float | None
    seconds: float = 0.0
    message: str = ""


def missing_nodes(plan: Plan, store: Store, targets: set[str]) -> dict[str, Node]:
    """Nodes to make: the targets that the store lacks, and what making them needs.

    A finished prediction needs none of its members, so a store without members can still be reported.  Artefacts that
    are used are read and checked here: damaged ones are set aside and made again.  Of all others the descriptions are
    checked, from which rows take the cost of training.
    """
    wanted: dict[str, Node] = {}
    intact: set[str] = set()
    open_ = [key for key in plan.nodes if key in targets and plan.nodes[key].kind not in TRAINED]
    lost = (n for n in plan.nodes.values() if store.described(n.kind, n.key) and not store.known(n.kind, n.key))
    open_ += [node.key for node in lost]
    while open_:
        node = plan.nodes[open_.pop()]
        if node.key in wanted or node.key in intact:
            continue
        if store.intact(node.kind, node.key):
            intact.add(node.key)
        else:
            wanted[node.key] = node
            open_ += [key for _, key in node.needs]
    return {key: node for key, node in plan.nodes.items() if key in wanted}


class Scheduler:
    """Keeps an executor busy with the nodes that are ready.

    A failed node fails the nodes that need it, and no others.  When a worker process dies, another one continues its
    node from the checkpoint.  After a second death the node waits until nothing else runs; after a third it fails.

    Args:
        nodes: to make, by key; all other artefacts that they need are in the store.
        submit: submits one node to the executor; the future gives ``made``, ``found`` or ``busy``.
        executor: where nodes are made.
        report: called for every start and end, and about twice a second.
        keep_trace: called with each node that failed and its error.
        stopping: whether no further node should start; running ones were asked to stop.
        work: estimated work of each node, in any unit; None: all are equal.
    """

    def __init__(
        self,
        nodes: dict[str, Node],
        submit: Callable[[Executor, Node], Future[str]],
        executor: Workers,
        report: Callable[[Event], None],
        keep_trace: Callable[[Node, BaseException], None],
        stopping: Callable[[], bool] = lambda: False,
        work: Mapping[str, float] | None = None,
    ) -> None:
        self.nodes, self.submit, self.executor, self.report = nodes, submit, executor, report
        self.keep_trace, self.stopping = keep_trace, stopping
        self.outcome, self._slots, self._begun = Outcome(), 1, time.monotonic()
        self._work = work or dict.fromkeys(nodes, 1.0)
        self._work_left, self._work_made = sum(self._work.values()), 0.0
        self._much, self._paced = self._work_left / max(1, len(nodes)) / 2, False
        self._waiting, self._ready = dict(nodes), Ready(nodes, self._work)
        self._postponed: list[tuple[float, str]] = []  # (time of the next check, key) of nodes that another run makes
        self._pause: dict[str, float] = {}  # how long each of those was waited for
        self._lonely: list[str] = []  # keys that wait until nothing else runs
        self._running: dict[Future[str], tuple[Node, float]] = {}
        self._deaths: Counter[str] = Counter()  # key -> how often its worker died

    def run(self) -> Outcome:
        """Make all nodes, or as many as possible before a stop."""
        self._begun, stopped = time.monotonic(), 0.0
        while self._waiting or self._running:
            self._slots = self.executor.slots()
            if not self.stopping():
                self._start()
            elif not stopped:
                stopped = time.monotonic()
            if stopped and (not self._running or time.monotonic() - stopped > GRACE_SECONDS):
                break
            if self._running:
                self.executor.check_workers()
                self._finish(wait(self._running, TICK_SECONDS, FIRST_COMPLETED).done)
            elif self._postponed:
                time.sleep(min(TICK_SECONDS, BUSY_SECONDS[0]))
            elif not (self._ready or self._lonely):
                break  # the rest needs a node that was stopped
            self._tell("tick")
        self.outcome.left += [*self._waiting.values(), *(node for node, _ in self._running.values())]
        self.outcome.seconds = time.monotonic() - self._begun
        return self.outcome

    def _next(self) -> Node | None:
        """The next node to start; None while there is none."""
        while self._postponed and self._postponed[0][0] <= time.monotonic():
            self._ready.push(heapq.heappop(self._postponed)[-1])
        if any(self._alone(node) for node, _ in self._running.values()):
            return None
        if self._ready:
            return self.nodes[self._ready.pop()]
        return self.nodes[self._lonely.pop()] if self._lonely and not self._running else None

    def _alone(self, node: Node) -> bool:
        """Whether the node must run alone: with others there may be too little memory."""
        return self._deaths[node.key] >= 2

    def _start(self) -> None:
        while len(self._running) < self._slots and (node := self._next()):
            del self._waiting[node.key]
            self._tell("start", node)
            now = time.monotonic()
            self._running[self.submit(self.executor, node)] = node, now
            if self.stopping():
                break

    def _finish(self, done: set[Future[str]]) -> None:
        for future in done:
            node, since = self._running.pop(future)
            seconds, error = time.monotonic() - since, _error(future)
            if isinstance(error, BrokenExecutor) and not self._alone(node):
                self._deaths[node.key] += 1
                self._waiting[node.key] = node
                if self._alone(node):
                    self._lonely.append(node.key)
                else:
                    self._ready.push(node.key)
            elif isinstance(error, TrainingStoppedError):
                self.outcome.left.append(node)
            elif error is not None:
                self.keep_trace(node, error)
                if not isinstance(error, ArtefactError):
                    self.outcome.final.add(node.key)
                self.outcome.damaged |= isinstance(error, ArtefactError)
                self._fail(node, error_sentence(error), seconds)
            elif future.result() == "busy":
                self._postpone(node)
            else:
                self._done(node, future.result() == "made", seconds)

    def _done(self, node: Node, made: bool, seconds: float) -> None:
        self._work_left -= self._work[node.key]
        if made:
            self.outcome.made.append(node)
            self._work_made += self._work[node.key]
            self._paced |= self._work[node.key] >= self._much
        self._ready.made(node.key)
        self._tell("done", node, seconds)

    def _postpone(self, node: Node) -> None:
        """Another run makes the node: check again later."""
        pause = self._pause[node.key] = min(2 * self._pause.get(node.key, BUSY_SECONDS[0] / 2), BUSY_SECONDS[1])
        heapq.heappush(self._postponed, (time.monotonic() + pause, node.key))
        self._waiting[node.key] = node
        self._tell("busy", node)

    def _fail(self, node: Node, reason: str, seconds: float = 0.0) -> None:
        """Fail a node and all that need it."""
        failed = [(node, reason, seconds)]
        while failed:
            node, reason, seconds = failed.pop()
            self._work_left -= self._work[node.key]
            self.outcome.failures[node.key] = reason
            self._tell("failed", node, seconds, reason)
            later = [self._waiting.pop(key) for key in self._ready.after[node.key] if key in self._waiting]
            failed += [(other, needs_failed(node), 0.0) for other in later]

    def _tell(self, what: str, node: Node | None = None, seconds: float = 0.0, message: str = "") -> None:
        done, eta = len(self.nodes) - len(self._waiting) - len(self._running), None
        # The rest goes on as fast as what was made; small nodes alone, which mostly start and read, tell no pace.
        if self._paced and self._work_made:
            eta = (time.monotonic() - self._begun) * max(0.0, self._work_left) / self._work_made
        self.report(Event(what, node, done, len(self.nodes), eta, seconds, message))


def _error(future: Future[str]) -> BaseException | None:
    """The exception of a finished future; being cancelled is one, too."""
    try:
        return future.exception()
    except CancelledError as error:
        return error


def needs_failed(node: Node) -> str:
    """The reason for which the nodes that need a failed one were not made."""
    return f"needs {node.title}, which failed"


def error_sentence(error: BaseException) -> str:
    """One sentence for people: errors of this package as they are, others with their type."""
    if isinstance(error, BenchError):
        return str(error)
    if isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker":
        return "its worker process died three times: killed by the system (too little memory?), or crashed"
    if isinstance(error, MemoryError):
        return "out of memory: use fewer processes (--jobs) or a smaller batch"
    return f"{type(error).__name__}: {error} (the full trace is in failures.log of the store)"
