"""Status of runs and of their nodes, and requests to stop: small files in the store.

Files work for every executor, on every machine that sees the store, and for people at another terminal.  They are
hints: unreadable ones are ignored, and no error here fails a training.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.store.artefacts import Store
from dbn_core.errors import StoreError
from dbn_core.files import replacing
from dbn_core.train.monitor import Monitor, Progress

# Epochs at least this long are validated for display even if the recipe keeps the last epoch.
SECONDS_FOR_VALIDATION = 10.0
# Letters of a title in the name of its folder of event files; file systems allow 255 bytes.
TITLE_LENGTH = 60


@dataclass(frozen=True)
class RunHandle:
    """Identity of a run, which every worker receives.

    Attributes:
        run: name of the run.
        store: its folder, absolute.
        tensorboard: folder for event files; None: none.
    """

    run: str
    store: str
    tensorboard: str | None = None

    @property
    def record(self) -> Path:
        """File with the status of the run."""
        return Path(self.store) / "runs" / f"{self.run}.json"

    @property
    def stop(self) -> Path:
        """File whose existence asks the workers to stop."""
        return self.record.with_suffix(".stop")

    def stopping(self) -> bool:
        """Whether the workers should write their checkpoints and stop."""
        return self.stop.exists()


def new_run(suite: str, store: Path, tensorboard: Path | None = None) -> RunHandle:
    """A handle with a unique name, even if two machines start a run in the same second."""
    name = f"{suite}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{socket.gethostname()}-{os.getpid()}"
    return RunHandle(name, str(store.resolve()), str(tensorboard.resolve()) if tensorboard else None)


class NodeMonitor(Monitor):
    """Updates the status file of one node while it is made, and checks whether the run stops."""

    def __init__(self, handle: RunHandle, key: str, title: str) -> None:
        self.handle, self.title, self.key = handle, title, key
        self.path = Path(handle.store) / "running" / f"{key}.json"
        self._begun = self._epoch_begun = time.monotonic()
        self._first_fraction: float | None = None
        self._scores: dict[str, float] = {}
        self._events: Any = None
        self._writes_events = handle.tensorboard is not None

    def update(self, progress: Progress) -> None:
        """Write the progress of the training, for the display and for ``dbn-bench status``."""
        if self._first_fraction is None:
            self._first_fraction = progress.fraction
        done, spent = progress.fraction - self._first_fraction, time.monotonic() - self._begun
        left = spent / done * (1 - progress.fraction) if done > 0 else None
        if progress.ends_epoch:
            self._scores = progress.validation or self._scores
            self._epoch_begun = time.monotonic()
            self._write_events(progress)
        self.write(
            epoch=progress.epoch,
            epochs=progress.epochs,
            fraction=progress.fraction,
            loss=progress.loss,
            left_s=left,
            **{f"validation_{name}": value for name, value in self._scores.items()},
        )

    def wants_validation(self) -> bool:
        """Whether epochs are long, so that a validation takes a small share of one."""
        return time.monotonic() - self._epoch_begun > SECONDS_FOR_VALIDATION

    def should_stop(self) -> bool:
        """Whether the run asks its workers to stop."""
        return self.handle.stopping()

    def write(self, **values: Any) -> None:
        """Write the file."""
        values = {"key": self.key, "title": self.title, "run": self.handle.run, "updated": time.time(), **values}
        with suppress(OSError):
            _replace(self.path, values)

    def close(self) -> None:
        """Remove the file: the node is finished or given up."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        if self._events is not None:
            with suppress(Exception):
                self._events.close()

    def _write_events(self, progress: Progress) -> None:
        if not self._writes_events:
            return
        scalars = {"loss": progress.loss, "learning_rate": progress.lr}
        scalars |= {f"validation/{name}": value for name, value in progress.validation.items()}
        try:
            if self._events is None:
                from torch.utils.tensorboard import SummaryWriter

                name = re.sub(r"[^\w .,:+-]", "-", self.title)[:TITLE_LENGTH]
                self._events = SummaryWriter(str(Path(str(self.handle.tensorboard)) / f"{name} {self.key[:8]}"))
            for name, value in scalars.items():
                self._events.add_scalar(name, value, progress.epoch)
        except Exception as error:  # TensorBoard raises errors of many types; none may fail a training
            self._writes_events = False
            logging.getLogger(__name__).warning("No event files of %s: %s: %s", self.title, type(error).__name__, error)


@contextmanager
def watched(handle: RunHandle, key: str, title: str) -> Iterator[NodeMonitor]:
    """A monitor for one node, whose file is removed afterwards."""
    monitor = NodeMonitor(handle, key, title)
    monitor.write()
    try:
        yield monitor
    finally:
        monitor.close()


def write_record(handle: RunHandle, **values: Any) -> None:
    """Write the status of a run: suite, state, counts, estimated end."""
    with suppress(OSError):
        host = {"run": handle.run, "host": socket.gethostname(), "pid": os.getpid(), "updated": time.time()}
        _replace(handle.record, host | values)


def request_stop(handle: RunHandle) -> None:
    """Ask all workers of a run to write their checkpoints and stop."""
    with suppress(OSError):
        handle.stop.parent.mkdir(parents=True, exist_ok=True)
        handle.stop.touch()


@contextmanager
def time_limit(handle: RunHandle, seconds: float | None) -> Iterator[None]:
    """Ask the workers of a run to stop after ``seconds``; None: never."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, request_stop, [handle])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def running(store: Store) -> list[dict[str, Any]]:
    """Status of the running nodes: those whose lock a process holds."""
    found = [_read(path) for path in sorted((store.root / "running").glob("*.json"))]
    return [value for value in found if value and _is_locked(store, value["key"])]


def _is_locked(store: Store, key: str) -> bool:
    with suppress(StoreError), store.locked(key) as free:  # a read-only store has no live runs
        return not free
    return False


def progress_of(store: Path, key: str) -> dict[str, Any]:
    """Status of the node ``key``; empty if unknown."""
    return _read(store / "running" / f"{key}.json")


def runs(store: Store) -> list[dict[str, Any]]:
    """Records of all runs on this store, the latest last."""
    found = [_read(path) for path in (store.root / "runs").glob("*.json")]
    return sorted((value for value in found if value), key=lambda value: value.get("updated", 0))


def _replace(path: Path, values: dict[str, Any]) -> None:
    """Replace a file without waiting for the disk: a hint need not survive a power cut."""
    with replacing(path, sync=False) as file:
        file.write(json.dumps(values).encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours, minutes and seconds."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
