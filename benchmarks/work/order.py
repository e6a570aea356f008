"""In which order nodes begin, and how long that takes on a number of workers."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from benchmarks.suite.plan import Node, priority


class Ready:
    """The nodes whose needs are made, the most urgent first.

    What is not trained takes a second and comes before all, so that an interrupted run has predictions of all it
    trained.  Then come nodes with the heaviest chain of dependents, so that no worker ends with a long tail.

    Args:
        nodes: to make, by key; needs that are not among them are made.
        work: of each node, in any unit.
    """

    def __init__(self, nodes: Mapping[str, Node], work: Mapping[str, float]) -> None:
        levels = bottom_levels(nodes, work)
        self._rank = {
            key: (priority(node.kind), -levels[key], place, key) for place, (key, node) in enumerate(nodes.items())
        }
        self._open = {key: {need for _, need in node.needs if need in nodes} for key, node in nodes.items()}
        self.after: dict[str, list[str]] = {key: [] for key in nodes}  # the nodes that need each
        for key, needs in self._open.items():
            for need in needs:
                self.after[need].append(key)
        self._heap = [self._rank[key] for key, needs in self._open.items() if not needs]
        heapq.heapify(self._heap)

    def __bool__(self) -> bool:
        return bool(self._heap)

    def pop(self) -> str:
        """Take the key of the most urgent node."""
        return heapq.heappop(self._heap)[-1]

    def push(self, key: str) -> None:
        """Put a node back."""
        heapq.heappush(self._heap, self._rank[key])

    def made(self, key: str) -> None:
        """Add the nodes for which ``key`` was the last need."""
        for later in self.after[key]:
            self._open[later].discard(key)
            if not self._open[later]:
                self.push(later)


def bottom_levels(nodes: Mapping[str, Node], work: Mapping[str, float]) -> dict[str, float]:
    """Work of each node and of the heaviest chain of nodes that depend on it, in the unit of ``work``."""
    after = dict.fromkeys(nodes, 0.0)
    levels = {}
    for key in reversed(list(nodes)):
        levels[key] = work[key] + after[key]
        for _, need in nodes[key].needs:
            if need in after:
                after[need] = max(after[need], levels[key])
    return levels


def longest_chain(nodes: Mapping[str, Node], seconds: Mapping[str, float]) -> list[str]:
    """Keys of the chain of nodes, each needing the one before, that takes longest: no number of workers is faster."""
    levels, chain = bottom_levels(nodes, seconds), list[str]()
    ready = list(nodes)
    while ready:
        chain.append(max(ready, key=levels.__getitem__))
        ready = [key for key, node in nodes.items() if any(need == chain[-1] for _, need in node.needs)]
    return chain


def makespan(nodes: Mapping[str, Node], seconds: Mapping[str, float], workers: int) -> float:
    """Seconds that nodes take on ``workers`` that begin them in the order of a run."""
    ready, running, now = Ready(nodes, seconds), list[tuple[float, str]](), 0.0
    while ready or running:
        while ready and len(running) < workers:
            key = ready.pop()
            heapq.heappush(running, (now + seconds[key], key))
        now = running[0][0]
        while running and running[0][0] <= now:
            ready.made(heapq.heappop(running)[1])
    return now
