"""The function that every executor calls in its workers: find or make one node of a run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from benchmarks.store.artefacts import Store
from benchmarks.store.released import Released
from benchmarks.suite.plan import Node
from benchmarks.suite.schema import Suite
from benchmarks.work.planning import wait_until_seen
from benchmarks.work.run_status import RunHandle
from benchmarks.work.worker import ArtefactBuilder
from dbn_core.errors import StoreError
from dbn_core.methods.registry import load_same


@dataclass(frozen=True)
class Job:
    """What workers need to know of a run.

    Attributes:
        suite: as JSON.
        device: on which networks run.
        code: sources of the methods, see :func:`dbn_core.methods.registry.loaded`.
        threads: torch threads of each process.
        handle: of the run.
        released: folders of released suites.
    """

    suite: str
    device: str
    code: tuple[tuple[str, str], ...]
    threads: int
    handle: RunHandle
    released: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def _builder(job: Job, device: str) -> ArtefactBuilder:
    torch.set_num_threads(job.threads)
    store = Store(job.handle.store, [Released(path) for path in job.released])
    return ArtefactBuilder(Suite.model_validate_json(job.suite), store, device)


def run_node(job: Job, node: Node, made: Sequence[tuple[str, str]] = ()) -> str:
    """Make ``node`` unless the store has it.

    Args:
        made: needs of the node that this run has made, as (kind, key); the worker waits until it sees them.

    Returns:
        ``made``, ``found`` (the store had it), or ``busy`` (another run is making it).

    Raises:
        StoreError: this machine cannot see the store of the run.
        PluginError: its plugins or its version of dbn-bench differ from those of the run.
    """
    if not job.handle.record.is_file():
        raise StoreError(
            f"The worker on {socket.gethostname()} does not see the store '{job.handle.store}': put the store on a "
            "file system that all workers share, and give it the same path everywhere."
        )
    load_same(dict(job.code))
    builder = _builder(job, _DEVICE or job.device)
    with builder.store.locked(node.key) as mine:
        if builder.store.has(node.kind, node.key):
            return "found"
        if not mine:
            return "busy"
        wait_until_seen(builder.store, made)
        builder.run(node, job.handle)
    return "made"


_DEVICE: str | None = None  # of this worker process, where each has its own


def start_worker(threads: int, device: str | None = None) -> None:
    """Initialiser of worker processes.

    Args:
        threads: torch threads.
        device: of this worker alone; None: the run's device.
    """
    global _DEVICE
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    _DEVICE = device
    # Ctrl-C reaches the whole process group; the run decides how its workers stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End with the run: an orphaned worker would wait forever, or hold the lock of its node."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
