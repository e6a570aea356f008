"""How long a plan would take on many workers: its nodes, event by event, in the order in which a real run begins them.

The model: a node takes its turn at the scheduler, reads what it needs, computes, and writes its result.  A worker's
first node reads the data too.  The store's bandwidth is shared evenly by all that read or write at one time.  Left
out are validation between epochs, decoding of images, failures, and the scoring and timing at the end of a run.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.suite.plan import Node, Plan, priority
from benchmarks.work.estimate import network_share, node_work, shifted_images
from benchmarks.work.schedule import bottom_levels
from dbn_core.errors import SpecError
from dbn_core.methods.registry import parse_method

# FLOPs of a multiply-add.
_FLOPS = 2
# A bound below this share of the makespan does not explain it.
_TIGHT = 0.9


@dataclass(frozen=True)
class Machine:
    """Workers and what they share.

    Attributes:
        workers: how many nodes are under way at once.
        flops_per_s: what one worker sustains in training.
        store_bytes_per_s: of the store, all workers together.
        task_overhead_s: what the scheduler spends on one node, one after another.

    Raises:
        SpecError: a number that no machine has.
    """

    workers: int
    flops_per_s: float
    store_bytes_per_s: float
    task_overhead_s: float

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise SpecError(f"A simulation needs at least 1 worker, not {self.workers}.")
        for name, value in (("FLOP/s of a worker", self.flops_per_s), ("bytes/s of the store", self.store_bytes_per_s)):
            if not (value > 0 and math.isfinite(value)):
                raise SpecError(f"The {name} must be a positive number, not {value:g}.")
        if not (self.task_overhead_s >= 0 and math.isfinite(self.task_overhead_s)):
            raise SpecError(f"The scheduler's time for a node must not be negative, as {self.task_overhead_s:g} s is.")


@dataclass(frozen=True)
class Demand:
    """What making one node takes."""

    flops: float = 0.0
    read_bytes: float = 0.0
    write_bytes: float = 0.0

    def seconds(self, machine: Machine) -> float:
        """Time on a machine where nothing else runs."""
        transfer = (self.read_bytes + self.write_bytes) / machine.store_bytes_per_s
        return machine.task_overhead_s + transfer + self.flops / machine.flops_per_s


@dataclass(frozen=True)
class Network:
    """Size of the suite's network: parameters, and multiply-adds of one forward pass."""

    params: int
    macs: int


@dataclass(frozen=True)
class Schedule:
    """What came of a simulation; times in seconds.

    Attributes:
        makespan_s: from the first node's start to the last one's end.
        spans: (start, end) of each node by key, in the order in which they begin.
        bounds_s: what no order of the nodes can undercut: ``workers`` (all work, evenly spread), ``longest chain``,
            ``store`` and ``scheduler``.
        chain: keys of the nodes of the longest chain, the first one first.
        work_s: all nodes, one after another, with the store to themselves.
        utilisation: computing as a share of the workers' time.
        read_bytes, written_bytes: through the store, the data that each worker loads included.
    """

    machine: Machine
    makespan_s: float
    spans: dict[str, tuple[float, float]]
    bounds_s: dict[str, float]
    chain: tuple[str, ...]
    work_s: float
    utilisation: float
    read_bytes: float
    written_bytes: float

    @property
    def lower_bound_s(self) -> float:
        """The largest of the bounds."""
        return max(self.bounds_s.values())

    @property
    def store_share(self) -> float:
        """Share of the time for which the store is busy at full speed."""
        seconds = (self.read_bytes + self.written_bytes) / self.machine.store_bytes_per_s
        return seconds / self.makespan_s if self.makespan_s else 0.0

    @property
    def scheduler_share(self) -> float:
        """Share of the time for which the scheduler is busy."""
        return self.bounds_s["scheduler"] / self.makespan_s if self.makespan_s else 0.0

    @property
    def bottleneck(self) -> str:
        """One sentence: what the time is up against, and what would shorten it."""
        name, bound = max(self.bounds_s.items(), key=lambda item: item[1])
        if not self.makespan_s:
            return "Bottleneck: none, as there is nothing to do."
        share = f"{100 * bound / self.makespan_s:.0f} % of the time"
        if bound < _TIGHT * self.makespan_s:
            return f"Bottleneck: the order of the nodes; the {name} would take {share}, the rest is workers that wait."
        remedy = {
            "workers": "more workers, or faster ones, shorten it",
            "longest chain": "more workers do not shorten it, faster ones and shorter trainings in the chain do",
            "store": "a faster store, or smaller artefacts, shorten it",
            "scheduler": "fewer and larger nodes shorten it",
        }[name]
        return f"Bottleneck: the {name} ({share}); {remedy}."


def network_size(plan: Plan) -> Network:
    """Count the suite's network on one image."""
    import torch

    from dbn_core.measure.cost import count_in_torch

    data = plan.data
    constants = (0.5,) * data.channels
    network = plan.suite.task.new_network(
        plan.suite.network, data.channels, data.image_size, len(data.classes), constants, constants
    )
    cost = count_in_torch(network, torch.zeros(1, data.channels, *data.image_size))
    return Network(cost.params, cost.macs)


def data_bytes(plan: Plan) -> int:
    """What a worker reads before its first node: all images, a byte a pixel and channel."""
    return sum(plan.data.counts.values()) * plan.data.channels * math.prod(plan.data.image_size)


def demands(plan: Plan, network: Network) -> dict[str, Demand]:
    """What each node of a plan takes, by key.  A part counts as large as the suite's network."""
    written = {key: _result_bytes(plan, node, network) for key, node in plan.nodes.items()}
    return {
        key: Demand(_flops(plan, node, network), sum(written[need] for _, need in node.needs), written[key])
        for key, node in plan.nodes.items()
    }


def _flops(plan: Plan, node: Node, network: Network) -> float:
    forward = _FLOPS * network.macs
    if node.kind in ("predictions", "shifts", "cost"):
        images = {"predictions": _evaluated(plan), "shifts": shifted_images(node), "cost": 1}[node.kind]
        heads = sum(network_share(part) for part in _predicting(plan, node))
        return forward * images * (len(node.payload["members"]) + heads)
    return forward * node_work(plan, node)


def _result_bytes(plan: Plan, node: Node, network: Network) -> int:
    if node.kind in ("member", "part"):
        return 4 * network.params
    classes = len(plan.data.classes)
    if node.kind == "views":  # in half precision
        return 2 * node.recipe["count"] * plan.data.counts["unseen" if "unseen" in node.recipe else "train"] * classes
    if node.kind == "predictions":
        method, size = parse_method(node.payload["spec"]), node.payload["size"]
        terms = method.terms(size) if method.nested else max(1, len(_predicting(plan, node)))
        return 4 * terms * _evaluated(plan) * classes
    if node.kind == "shifts":  # in half precision
        method, size = parse_method(node.payload["spec"]), node.payload["size"]
        return 2 * (method.terms(size) if method.nested else 1) * shifted_images(node) * classes
    return 0


def _evaluated(plan: Plan) -> int:
    return plan.data.counts["validation"] + plan.data.counts["test"]


def _predicting(plan: Plan, node: Node) -> list[Node]:
    """The parts that a predictor runs: those that no other of its parts was made from."""
    parts = [plan.nodes[key] for key in node.payload["parts"].values()]
    used = {need for part in parts for _, need in part.needs}
    return [part for part in parts if part.key not in used]


def simulate(
    nodes: dict[str, Node], demand: Mapping[str, Demand], machine: Machine, loaded_bytes: float = 0.0
) -> Schedule:
    """Make ``nodes`` on a machine, as :class:`benchmarks.work.schedule.Scheduler` would.

    Args:
        nodes: in an order in which they can be made; needs that are not among them are met.
        demand: what each takes, by key.
        loaded_bytes: what each worker reads before its first node.
    """
    run = _Run(nodes, demand, machine, loaded_bytes)
    makespan = run.run()
    seconds = {key: demand[key].seconds(machine) for key in nodes}
    chain = _longest_chain(nodes, seconds)
    compute = sum(demand[key].flops for key in nodes) / machine.flops_per_s
    written = sum(demand[key].write_bytes for key in nodes)
    read = sum(demand[key].read_bytes for key in nodes)
    bounds = {
        "workers": sum(seconds.values()) / machine.workers,
        "longest chain": sum(seconds[key] for key in chain),
        "store": (read + written) / machine.store_bytes_per_s,
        "scheduler": len(nodes) * machine.task_overhead_s,
    }
    used = compute / (machine.workers * makespan) if makespan else 0.0
    read += len(run.loaded) * loaded_bytes
    return Schedule(machine, makespan, run.spans, bounds, chain, sum(seconds.values()), used, read, written)


def _longest_chain(nodes: Mapping[str, Node], seconds: Mapping[str, float]) -> tuple[str, ...]:
    """Keys of the chain of nodes, each needing the one before, that takes longest."""
    until: dict[str, float] = {}
    before: dict[str, str] = {}
    for key, node in nodes.items():
        earlier = [need for _, need in node.needs if need in nodes]
        before[key] = max(earlier, key=until.__getitem__, default="")
        until[key] = seconds[key] + until.get(before[key], 0.0)
    chain = [max(until, key=until.__getitem__, default="")]
    while chain[-1]:
        chain.append(before[chain[-1]])
    return tuple(reversed(chain[:-1]))


class _Run:
    """One simulation.  Transfers are fair: of k under way, each moves on at a k-th of the bandwidth.

    ``_moved`` counts the bytes that a transfer under way since the start would have moved; one that starts now ends
    when it has grown by its size, however many join and leave meanwhile.
    """

    def __init__(self, nodes: dict[str, Node], demand: Mapping[str, Demand], machine: Machine, loaded: float) -> None:
        self._nodes, self._demand, self._machine, self._loaded_bytes = nodes, demand, machine, loaded
        self._place = {key: place for place, key in enumerate(nodes)}
        self._height = bottom_levels(nodes, {key: demand[key].flops for key in nodes})
        self._open = {key: {need for _, need in node.needs if need in nodes} for key, node in nodes.items()}
        self._after: dict[str, list[str]] = {key: [] for key in nodes}
        for key, needs in self._open.items():
            for need in needs:
                self._after[need].append(key)
        self._ready = [self._rank(key) for key, needs in self._open.items() if not needs]
        heapq.heapify(self._ready)
        self._idle = list(range(machine.workers))
        self._worker: dict[str, int] = {}
        self.loaded: set[int] = set()  # workers that hold the data
        self.spans: dict[str, tuple[float, float]] = {}
        self._now = self._moved = self._scheduler_free = 0.0
        self._timers: list[tuple[float, int, str, str]] = []  # (time, place, key, what comes next)
        self._transfers: list[tuple[float, int, str, str]] = []  # (bytes moved by then, place, key, what comes next)

    def _rank(self, key: str) -> tuple[int, float, int, str]:
        return priority(self._nodes[key].kind), -self._height[key], self._place[key], key

    def run(self) -> float:
        """Time at which the last node ends."""
        self._dispatch()
        while self._timers or self._transfers:
            rate = self._machine.store_bytes_per_s / max(1, len(self._transfers))
            timer = self._timers[0][0] if self._timers else math.inf
            ahead = self._transfers[0][0] - self._moved if self._transfers else math.inf
            arrival = self._now + max(0.0, ahead) / rate
            if arrival <= timer:
                self._moved, _, key, what = heapq.heappop(self._transfers)
            else:
                self._moved += (timer - self._now) * rate if self._transfers else 0.0
                _, _, key, what = heapq.heappop(self._timers)
            self._now = min(arrival, timer)
            self._advance(key, what)
            if not (self._timers and self._timers[0][0] <= self._now):  # what ends together makes room together
                self._dispatch()
        return self._now

    def _dispatch(self) -> None:
        while self._ready and self._idle:
            key = heapq.heappop(self._ready)[-1]
            self._worker[key] = heapq.heappop(self._idle)
            self._scheduler_free = max(self._now, self._scheduler_free) + self._machine.task_overhead_s
            self.spans[key] = self._now, math.inf
            heapq.heappush(self._timers, (self._scheduler_free, self._place[key], key, "read"))

    def _advance(self, key: str, what: str) -> None:
        demand, worker = self._demand[key], self._worker[key]
        if what == "read":
            size = demand.read_bytes + (0.0 if worker in self.loaded else self._loaded_bytes)
            self.loaded.add(worker)
            self._transfer(key, size, "compute")
        elif what == "compute":
            due = self._now + demand.flops / self._machine.flops_per_s
            heapq.heappush(self._timers, (due, self._place[key], key, "write"))
        elif what == "write":
            self._transfer(key, demand.write_bytes, "end")
        else:
            self.spans[key] = self.spans[key][0], self._now
            heapq.heappush(self._idle, worker)
            for later in self._after[key]:
                self._open[later].discard(key)
                if not self._open[later]:
                    heapq.heappush(self._ready, self._rank(later))

    def _transfer(self, key: str, size: float, then: str) -> None:
        if size > 0:
            heapq.heappush(self._transfers, (self._moved + size, self._place[key], key, then))
        else:
            heapq.heappush(self._timers, (self._now, self._place[key], key, then))
