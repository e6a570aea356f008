"""Run a plan: submit every node whose needs are met to an executor, until none is left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass, field

from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import TRAINED, Node, Plan, turn
from benchmarks.work.executors import Engine
from dbn_core.errors import ArtefactError, BenchError, TrainingStoppedError

# How often the screen and the run's record are renewed, and a request to stop is noticed.
TICK_SECONDS = 0.5
# How long workers may take to write their checkpoints after a request to stop.
GRACE_SECONDS = 20.0
# How long to leave a node alone that another run is making, at first and at most.
BUSY_SECONDS = (0.5, 15.0)


@dataclass
class Outcome:
    """What came of a run."""

    made: list[Node] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # key -> reason
    left: list[Node] = field(default_factory=list)  # not begun, or stopped half way
    damaged: bool = False  # whether a failure came from a damaged artefact, which is now set aside
    seconds: float = 0.0


@dataclass(frozen=True)
class Event:
    """Progress: a node started, ended, or is being made by another run; or time passed."""

    what: str  # "start", "done", "failed", "busy" or "tick"
    node: Node | None
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
            known = self.seconds.get(self._group(node)) or (every if turn(node.kind) else [0.2])
            total += sum(known) / len(known)
        return total / jobs

    @staticmethod
    def _group(node: Node) -> str:
        return node.recipe["method"] + node.recipe["part"].split("-")[0] if node.kind == "part" else node.kind


def missing_nodes(plan: Plan, store: Store, targets: set[str]) -> dict[str, Node]:
    """Nodes to make: the targets that the store lacks, and what making them needs.

    A finished prediction needs none of its members, so a store without members still reports.  Whatever is used is
    read and checked first: damaged artefacts are set aside, and so are made again.  Of the rest the descriptions are
    checked, since rows tell from them what trainings cost.
    """
    wanted: dict[str, Node] = {}
    intact: set[str] = set()
    open_ = [key for key in plan.nodes if key in targets and plan.nodes[key].kind not in TRAINED]
    open_ += [node.key for node in plan.nodes.values() if store.lost_description(node.kind, node.key)]
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
    """Keeps an engine busy with the nodes that are ready.

    A failed node fails what needs it, and nothing else.  When a worker process dies, what it was making goes on from
    its checkpoint in another one; after a second death it waits until nothing else runs; after a third it has failed.

    Args:
        nodes: to make, by key; whatever they need besides is in the store.
        submit: submits one node to the executor; the future gives ``made``, ``found`` or ``busy``.
        engine: where nodes are made.
        report: called for every start and end, and about twice a second.
        keep_trace: called with the error of every node that failed by itself.
        stopping: whether no further node should begin; running ones have been told.
        work: estimated work of each node, in any unit: what has most behind it begins first.  None: all are alike.
    """

    def __init__(
        self,
        nodes: dict[str, Node],
        submit: Callable[[Executor, Node], Future[str]],
        engine: Engine,
        report: Callable[[Event], None],
        keep_trace: Callable[[Node, BaseException], None],
        stopping: Callable[[], bool] = lambda: False,
        work: Mapping[str, float] | None = None,
    ) -> None:
        self.nodes, self.submit, self.engine, self.report = nodes, submit, engine, report
        self.keep_trace, self.stopping = keep_trace, stopping
        self.outcome, self._clock = Outcome(), _Clock()
        self._height = heights(nodes, work or dict.fromkeys(nodes, 1.0))
        self._waiting = dict(nodes)
        self._running: dict[Future[str], tuple[Node, float]] = {}
        self._deaths: Counter[str] = Counter()  # key -> how often its worker died
        self._not_before: dict[str, tuple[float, float]] = {}  # key -> (time, pause) of nodes that others make

    def run(self) -> Outcome:
        """Make all nodes, or as many as can be made until it is stopped."""
        begun, stopped = time.monotonic(), 0.0
        while self._waiting or self._running:
            self._fail_dependents()
            if not self.stopping():
                self._start()
            elif not stopped:
                stopped = time.monotonic()
            if stopped and (not self._running or time.monotonic() - stopped > GRACE_SECONDS):
                break
            if self._running:
                self.engine.look_after()
                done = wait(self._running, TICK_SECONDS, FIRST_COMPLETED).done
                self._finish(done)
            elif self._waiting:
                time.sleep(min(TICK_SECONDS, BUSY_SECONDS[0]))
            self._tell("tick")
        self.outcome.left += [*self._waiting.values(), *(node for node, _ in self._running.values())]
        self.outcome.seconds = time.monotonic() - begun
        return self.outcome

    def _ready(self) -> list[Node]:
        """Nodes to begin with: those with the heaviest chain first, so that no worker is left with a long tail.

        What is not trained takes a second, and comes before all: a run whose time is up has the predictions of
        whatever it trained.
        """
        unfinished = {*self._waiting, *(node.key for node, _ in self._running.values())}
        now = time.monotonic()
        ready = [
            node
            for node in self._waiting.values()
            if self._not_before.get(node.key, (0.0,))[0] <= now
            and not any(need in unfinished for _, need in node.needs)
        ]
        if any(self._alone(node) for node, _ in self._running.values()):
            return []
        others = [node for node in ready if not self._alone(node)]
        if others:
            return sorted(others, key=lambda node: (turn(node.kind), -self._height[node.key]))
        return [] if self._running else ready[:1]

    def _alone(self, node: Node) -> bool:
        """Whether nothing else should run beside it: with others there may be too little memory."""
        return self._deaths[node.key] >= 2

    def _start(self) -> None:
        for node in self._ready():
            if len(self._running) >= self.engine.slots():
                break
            del self._waiting[node.key]
            self._tell("start", node)
            now = time.monotonic()
            self._running[self.submit(self.engine.executor, node)] = node, now
            if self.stopping():
                break

    def _finish(self, done: set[Future[str]]) -> None:
        for future in done:
            node, since = self._running.pop(future)
            seconds, error = time.monotonic() - since, _error(future)
            if isinstance(error, BrokenExecutor) and not self._alone(node):
                self._deaths[node.key] += 1
                self._waiting[node.key] = node
            elif isinstance(error, TrainingStoppedError):
                self.outcome.left.append(node)
            elif error is not None:
                self._fail(node, error, seconds)
            elif future.result() == "busy":
                self._postpone(node)
            else:
                if future.result() == "made":
                    self.outcome.made.append(node)
                    self._clock.add(node, seconds)
                self._tell("done", node, seconds)

    def _postpone(self, node: Node) -> None:
        """Another run makes it: look again later, and work on something else meanwhile."""
        _, pause = self._not_before.get(node.key, (0.0, BUSY_SECONDS[0] / 2))
        pause = min(2 * pause, BUSY_SECONDS[1])
        self._not_before[node.key] = time.monotonic() + pause, pause
        self._waiting[node.key] = node
        self._tell("busy", node)

    def _fail(self, node: Node, error: BaseException, seconds: float) -> None:
        self.outcome.failures[node.key] = describe(error)
        self.outcome.damaged |= isinstance(error, ArtefactError)
        self.keep_trace(node, error)
        self._tell("failed", node, seconds, self.outcome.failures[node.key])

    def _fail_dependents(self) -> None:
        failures = self.outcome.failures
        for node in [n for n in self._waiting.values() if any(need in failures for _, need in n.needs)]:
            del self._waiting[node.key]
            cause = next(need for _, need in node.needs if need in failures)
            failures[node.key] = f"needs {self.nodes[cause].title}, which failed"
            self._tell("failed", node, message=failures[node.key])

    def _tell(self, what: str, node: Node | None = None, seconds: float = 0.0, message: str = "") -> None:
        left = [*self._waiting.values(), *(node for node, _ in self._running.values())]
        done, eta = len(self.nodes) - len(left), self._clock.left(left, self.engine.slots())
        self.report(Event(what, node, done, len(self.nodes), eta, seconds, message))


def _error(future: Future[str]) -> BaseException | None:
    """The exception of a finished future; one that was cancelled has an exception too."""
    try:
        return future.exception()
    except CancelledError as error:
        return error


def describe(error: BaseException) -> str:
    """One sentence for a person: our errors as they are, others with their type."""
    if isinstance(error, BenchError):
        return str(error)
    if isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker":
        return "its worker process died again and again: killed by the system (too little memory?), or crashed"
    if isinstance(error, MemoryError):
        return "there was too little memory: use fewer processes (--jobs) or a smaller batch"
    return f"{type(error).__name__}: {error} (the full trace is in failures.log of the store)"


def heights(nodes: dict[str, Node], work: Mapping[str, float]) -> dict[str, float]:
    """Work of each node and of the heaviest chain of nodes that wait for it, in the unit of ``work``."""
    after = dict.fromkeys(nodes, 0.0)
    height = {}
    for key in reversed(nodes):
        height[key] = work.get(key, 0.0) + after[key]
        for _, need in nodes[key].needs:
            if need in after:
                after[need] = max(after[need], height[key])
    return height
