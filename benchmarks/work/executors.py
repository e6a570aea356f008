"""Where nodes are made: in this process, in worker processes, or on a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, InvalidStateError, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children, connection
from multiprocessing.process import BaseProcess
from typing import Any

from dbn_core.errors import SpecError

# How long a pool may take to notice that its process died, or a process to end when asked.
LOST_SECONDS = 10.0
CONNECT_SECONDS = 10.0  # until a Dask scheduler has to answer


class Workers(Executor):
    """An executor that knows how many nodes it makes at once."""

    def slots(self) -> int:
        """How many nodes it makes at once; may change during a run."""
        return 1

    def check_workers(self) -> None:
        """Close the futures of workers that died, if the executor does not notice it; called about twice a second."""


class Inline(Workers):
    """Runs each call at once in this process: for debugging, or for one large network that uses every core."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call ``fn`` and return a finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass
class _Worker:
    """A pool of one process, the process, its current future, and when it was first found dead."""

    start: Callable[[], ProcessPoolExecutor]
    pool: ProcessPoolExecutor | None = None
    process: BaseProcess | None = None
    future: Future[Any] | None = None
    dead_since: float | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a call, in a new process if the old one died."""
        self.dead_since = None
        if self.pool is not None:
            with suppress(BrokenProcessPool):
                self.future = self.pool.submit(fn, *args, **kwargs)
                return self.future
        before = set(active_children())
        self.pool = self.start()
        self.future = self.pool.submit(fn, *args, **kwargs)  # starts the process
        self.process = next(iter(set(active_children()) - before), None)  # None: it died already
        return self.future

    def check_workers(self) -> None:
        """Close the future of a process that died unnoticed: first wake the pool, then close it here."""
        if self.pool is None or self.future is None or self.future.done():
            return
        if not self._ended(0):
            return
        now = time.monotonic()
        self.dead_since = self.dead_since or now
        if now - self.dead_since < LOST_SECONDS:
            with suppress(BrokenProcessPool, RuntimeError):
                self.pool.submit(os.getpid)  # a pool with new work checks its process again
        else:
            with suppress(InvalidStateError):
                self.future.set_exception(BrokenProcessPool("the worker process is gone, and its pool did not say so"))
            self.pool.shutdown(wait=False, cancel_futures=True)
            self.pool = None

    def end(self, wait: bool, cancel_futures: bool) -> None:
        """End the process: at once, or (``wait``) when its call is done."""
        if self.pool is None:
            return
        while wait and self.future is not None and not wait_for([self.future], 1.0).done:
            self.check_workers()
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=cancel_futures)
        if self.process is not None and not self._ended(LOST_SECONDS if wait else 0):
            self.process.terminate()

    def _ended(self, seconds: float) -> bool:
        """Whether the process has ended, or ends within ``seconds``."""
        return self.process is None or bool(connection.wait([self.process.sentinel], seconds))


class Processes(Workers):
    """A pool of one process for each worker, so that a worker that dies affects no other.

    A pool of several processes can hang when one of them dies while another starts (seen with CPython 3.11.7); a pool
    of one cannot.  It can still miss the death of a process that is just being given work, which
    :meth:`check_workers` finds.

    Args:
        start: make the pool of each worker.
    """

    def __init__(self, start: Sequence[Callable[[], ProcessPoolExecutor]]) -> None:
        self._workers = [_Worker(one) for one in start]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Give the call to the first idle worker, restarted if it died.

        Raises:
            RuntimeError: no worker is idle.
        """
        for worker in self._workers:
            if worker.future is None or worker.future.done():
                return worker.submit(fn, *args, **kwargs)
        raise RuntimeError("every worker is busy")

    def slots(self) -> int:
        """As many as workers."""
        return len(self._workers)

    def check_workers(self) -> None:
        """Close every future whose process died unnoticed, so that its call can be repeated."""
        for worker in self._workers:
            worker.check_workers()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; without ``wait``, at once."""
        for worker in self._workers:
            worker.end(wait, cancel_futures)


class Dask(Workers):
    """A running Dask cluster; when a worker dies, Dask repeats its task on another.

    Anyone who can connect to a scheduler can run code as its user.  Connections are encrypted if Dask's configuration
    sets ``distributed.comm.require-encryption``.

    Args:
        address: of a scheduler, such as ``tcp://host:8786``.

    Raises:
        SpecError: Dask is not installed, or no scheduler answers at the address.
    """

    def __init__(self, address: str) -> None:
        try:
            from dask import config
            from dask.distributed import Client
        except ImportError as error:
            raise SpecError("The executor 'dask' needs Dask: run `pip install -e '.[dask]'` in the clone.") from error
        if config.get("distributed.comm.require-encryption", False):
            address = address.replace("tcp://", "tls://", 1)
        try:
            self.client = Client(address, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise SpecError(
                f"No Dask scheduler answers at '{address}': start one (`dask scheduler`), or correct the address."
            ) from error
        self._executor = self.client.get_executor(pure=False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Give the call to the cluster."""
        future: Future[Any] = self._executor.submit(fn, *args, **kwargs)
        return future

    def slots(self) -> int:
        """Threads of all current workers; at least one."""
        return max(1, sum(self.client.nthreads().values()))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Disconnect."""
        self._executor.shutdown(wait=wait)
        self.client.close()


def parse_executor(text: str) -> tuple[str, str]:
    """(kind, address) of ``processes``, ``inline`` or ``dask://host:port``.

    Raises:
        SpecError: none of these.
    """
    if text.startswith("dask://") and text.removeprefix("dask://"):
        return "dask", text.replace("dask://", "tcp://", 1)
    if text in ("processes", "inline"):
        return text, ""
    raise SpecError(f"Unknown executor '{text}': choose processes, inline or dask://HOST:PORT.")


def cuda_devices(device: str) -> tuple[str, ...]:
    """The GPUs that a run may use: all of them for ``auto`` and ``cuda``, one for ``cuda:1``, none for ``cpu``."""
    if device == "cpu":
        return ()
    import torch

    if ":" in device:
        return (device,)
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))


def make_executor(executor: str, jobs: int, threads: int, devices: tuple[str, ...] = ()) -> Workers:
    """The executor that ``--executor`` and ``--jobs`` ask for.

    Args:
        executor: see :func:`parse_executor`.
        jobs: worker processes; 0 means this process, -1 see :func:`worker_count`.
        threads: torch threads of each process.
        devices: the GPUs to spread processes over.
    """
    kind, address = parse_executor(executor)
    count = worker_count(jobs, len(devices))
    if kind == "inline" or (kind == "processes" and count == 0):
        return Inline()
    if kind == "dask":
        return Dask(address)
    from benchmarks.work.job import start_worker

    # spawn: a forked child of a process that has used torch's thread pool can hang.
    context = multiprocessing.get_context("spawn")
    places = [devices[index % len(devices)] if devices else None for index in range(count)]
    return Processes([partial(ProcessPoolExecutor, 1, context, start_worker, (threads, place)) for place in places])


# Four processes on one GPU train 2.7 times as fast as one; eight hardly gain (results/perf/gpu.md).
PER_GPU = 4


def worker_count(jobs: int, gpus: int) -> int:
    """Number of worker processes for ``--jobs``: -1 is one for each core, or with GPUs up to four for each GPU.

    One training of a small network leaves most of a GPU idle, because it waits for kernel launches.
    """
    if jobs >= 0:
        return jobs
    cores = os.cpu_count() or 1
    return gpus * max(1, min(PER_GPU, cores // gpus)) if gpus else cores


@contextmanager
def open_executor(executor: str, jobs: int, threads: int, devices: tuple[str, ...] = ()) -> Iterator[Workers]:
    """:func:`make_executor`, shut down at the end; after an error at once, so that Ctrl-C waits for no training."""
    made = make_executor(executor, jobs, threads, devices)
    try:
        yield made
    except BaseException:
        with suppress(Exception):
            made.shutdown(wait=False, cancel_futures=True)
        raise
    made.shutdown(wait=True, cancel_futures=True)
