"""How long a plan would take on many workers, in the order in which a real run begins its nodes.

The model: each worker first loads the data; a node then takes the scheduler's time, reads what it needs, computes, and
writes its result, as if it had the store to itself.  A makespan below what store or scheduler need is raised to that.
Left out are validation between epochs, decoding of images, failures, and the scoring and timing at the end of a run.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.suite.plan import Node, Plan, priority
from benchmarks.work.estimate import node_work, predicting_parts, shifted_images
from benchmarks.work.schedule import bottom_levels
from dbn_core.errors import SpecError
from dbn_core.methods.registry import parse_method

# FLOPs of a multiply-add.
_FLOPS = 2
# A bound below this share of the makespan does not explain it.
_TIGHT = 0.9
_REMEDIES = {
    "workers": "more workers, or faster ones, shorten it",
    "longest chain": "more workers do not shorten it, faster ones and shorter trainings in the chain do",
    "store": "a faster store, or smaller artefacts, shorten it",
    "scheduler": "fewer and larger nodes shorten it",
}


@dataclass(frozen=True)
class Machine:
    """Workers and what they share.

    Attributes:
        workers: nodes that run at once.
        flops_per_s: what one worker sustains in training.
        store_bytes_per_s: of the store, all workers together.
        task_overhead_s: what the scheduler spends on one node, one after another.

    Raises:
        SpecError: a number that is not positive (the overhead: negative), or not finite.
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
            raise SpecError(f"The scheduler's time for a node must not be negative, not {self.task_overhead_s:g} s.")


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
class Timeline:
    """Result of a simulation; times in seconds.

    Attributes:
        makespan_s: from the first node's start to the last one's end.
        spans: (start, end) of each node by key, in the order in which they begin.
        bounds_s: lower bounds that hold for every order of the nodes: ``workers`` (all work, evenly spread),
            ``longest chain``, ``store`` and ``scheduler``.
        chain: keys of the nodes of the longest chain, the first one first.
        utilisation: computing as a share of the workers' time.
        read_bytes, written_bytes: through the store, with the data that each worker loads.
    """

    machine: Machine
    makespan_s: float
    spans: dict[str, tuple[float, float]]
    bounds_s: dict[str, float]
    chain: tuple[str, ...]
    utilisation: float
    read_bytes: float
    written_bytes: float

    @property
    def lower_bound_s(self) -> float:
        """The largest of the bounds."""
        return max(self.bounds_s.values())

    @property
    def bottleneck(self) -> str:
        """One sentence: what limits the time, and what would shorten it."""
        name, bound = max(self.bounds_s.items(), key=lambda item: item[1])
        if not self.makespan_s:
            return "Bottleneck: none, as there is nothing to do."
        share = f"{100 * bound / self.makespan_s:.0f} % of the time"
        if bound < _TIGHT * self.makespan_s:
            return f"Bottleneck: the order of the nodes; the {name} would take {share}, the rest is workers that wait."
        return f"Bottleneck: the {name} ({share}); {_REMEDIES[name]}."


def network_size(plan: Plan) -> tuple[int, int]:
    """Parameters of the suite's network, and multiply-adds of one forward pass of one image."""
    import torch

    from dbn_core.measure.cost import count_in_torch

    data, statistics = plan.data, (0.5,) * plan.data.channels
    network = plan.suite.task.new_network(
        plan.suite.network, data.channels, data.image_size, len(data.classes), statistics, statistics
    )
    cost = count_in_torch(network, torch.zeros(1, data.channels, *data.image_size))
    return cost.params, cost.macs


def data_bytes(plan: Plan) -> int:
    """What a worker reads before its first node: all images, one byte a pixel and channel."""
    return sum(plan.data.counts.values()) * plan.data.channels * math.prod(plan.data.image_size)


def demands(plan: Plan, params: int, macs: int) -> dict[str, Demand]:
    """What each node of a plan takes, by key; a part counts as large as the suite's network."""
    written = {key: _result_bytes(plan, node, params) for key, node in plan.nodes.items()}
    return {
        key: Demand(
            _FLOPS * macs * node_work(plan, node).forward, sum(written[need] for _, need in node.needs), written[key]
        )
        for key, node in plan.nodes.items()
    }


def _result_bytes(plan: Plan, node: Node, params: int) -> int:
    counts, classes = plan.data.counts, len(plan.data.classes)
    if node.kind in ("member", "part"):
        return 4 * params
    if node.kind == "views":  # in half precision
        return 2 * node.recipe["count"] * counts["unseen" if "unseen" in node.recipe else "train"] * classes
    if node.kind == "cost":
        return 0
    method, size = parse_method(node.payload["spec"]), node.payload["size"]
    if node.kind == "shifts":  # in half precision
        return 2 * (method.terms(size) if method.nested else 1) * shifted_images(node) * classes
    terms = method.terms(size) if method.nested else max(1, len(predicting_parts(plan, node)))
    return 4 * terms * (counts["validation"] + counts["test"]) * classes


def simulate(
    nodes: dict[str, Node], demand: Mapping[str, Demand], machine: Machine, loaded_bytes: float = 0.0
) -> Timeline:
    """Make ``nodes`` on a machine, as :class:`benchmarks.work.schedule.Scheduler` would.

    Args:
        nodes: in an order in which they can be made; needs that are not among them are met.
        demand: what each takes, by key.
        loaded_bytes: what each worker reads before its first node.
    """
    loaded = loaded_bytes * min(machine.workers, len(nodes))
    written = sum(demand[key].write_bytes for key in nodes)
    read = sum(demand[key].read_bytes for key in nodes)
    seconds = {key: demand[key].seconds(machine) for key in nodes}
    chain = _longest_chain(nodes, seconds)
    bounds = {
        "workers": sum(seconds.values()) / machine.workers,
        "longest chain": sum(seconds[key] for key in chain),
        "store": (loaded + read + written) / machine.store_bytes_per_s,
        "scheduler": len(nodes) * machine.task_overhead_s,
    }
    spans = _spans(nodes, demand, seconds, machine.workers, loaded / machine.store_bytes_per_s)
    makespan = max([*(end for _, end in spans.values()), bounds["store"], bounds["scheduler"]])
    computing = sum(demand[key].flops for key in nodes) / machine.flops_per_s
    used = computing / (machine.workers * makespan) if makespan else 0.0
    return Timeline(machine, makespan, spans, bounds, chain, used, read + loaded, written)


def _spans(
    nodes: dict[str, Node], demand: Mapping[str, Demand], seconds: Mapping[str, float], workers: int, now: float
) -> dict[str, tuple[float, float]]:
    """List scheduling: whenever a worker is idle, the ready node of the highest priority begins."""
    levels = bottom_levels(nodes, {key: demand[key].flops for key in nodes})
    rank = {key: (priority(node.kind), -levels[key], place, key) for place, (key, node) in enumerate(nodes.items())}
    open_ = {key: {need for _, need in node.needs if need in nodes} for key, node in nodes.items()}
    after: dict[str, list[str]] = {key: [] for key in nodes}
    for key, needs in open_.items():
        for need in needs:
            after[need].append(key)
    ready = sorted(rank[key] for key, needs in open_.items() if not needs)
    running: list[tuple[float, str]] = []
    spans: dict[str, tuple[float, float]] = {}
    while ready or running:
        while ready and len(running) < workers:
            key = heapq.heappop(ready)[-1]
            spans[key] = now, now + seconds[key]
            heapq.heappush(running, (spans[key][1], key))
        now = running[0][0]
        while running and running[0][0] <= now:
            ended = heapq.heappop(running)[1]
            for key in after[ended]:
                open_[key].discard(ended)
                if not open_[key]:
                    heapq.heappush(ready, rank[key])
    return spans


def _longest_chain(nodes: Mapping[str, Node], seconds: Mapping[str, float]) -> tuple[str, ...]:
    """Keys of the chain of nodes, each needing the one before, that takes longest."""
    levels = bottom_levels(dict(nodes), seconds)
    chain: list[str] = []
    ready = [key for key, node in nodes.items() if not any(need in nodes for _, need in node.needs)]
    while ready:
        chain.append(max(ready, key=levels.__getitem__))
        ready = [key for key, node in nodes.items() if any(need == chain[-1] for _, need in node.needs)]
    return tuple(chain)
