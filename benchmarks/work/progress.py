"""Progress of a run: a live display on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.suite.plan import TRAINED
from benchmarks.work.run_status import clock, progress_of
from benchmarks.work.schedule import Event

# In a log: a line for each training, one every few seconds for other nodes, and one a minute for running nodes.
_QUIET_SECONDS, _UNDER_WAY_SECONDS = 5.0, 60.0


class Reporter:
    """Receives the phases and events of a run; a context manager that owns the live display."""

    def __init__(self, console: Console, store: Path) -> None:
        self.console, self.store = console, store
        self._live: Live | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._running: dict[str, str] = {}  # key -> title
        self._last_line = self._last_look = self._started = time.monotonic()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, event: str | Event) -> None:
        """Show a phase or an event."""
        if isinstance(event, str):
            self._stop()
            self._print(f"[{clock(time.monotonic() - self._started)}] {event} ...")
            return
        if event.node is not None:
            if event.what == "start":
                self._running[event.node.key] = event.node.title
            else:
                self._running.pop(event.node.key, None)
            if event.what == "failed":
                self._print(f"FAILED  {event.node.title}: {event.message}", style="bold red")
        (self._draw if self.console.is_terminal else self._log)(event)

    def _draw(self, event: Event) -> None:
        if self._live is None or self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
            )
            self._task = self._bar.add_task("artefacts", total=event.total, left="")
            self._live = Live(console=self.console, refresh_per_second=4)
            self._live.start()
        self._bar.update(self._task, completed=event.done, total=event.total, left=_left(event.eta_s))
        self._live.update(Group(self._bar, running_table(self._under_way())), refresh=True)

    def _under_way(self) -> list[dict[str, Any]]:
        return [{"title": title} | progress_of(self.store, key) for key, title in self._running.items()]

    def _log(self, event: Event) -> None:
        now = time.monotonic()
        where = f"[{clock(now - self._started)}] {event.done:>4}/{event.total}"
        if event.what == "tick" and now - self._last_look > _UNDER_WAY_SECONDS:
            self._last_look = now
            for value in self._under_way():
                if "loss" in value:
                    self._print(f"{where}  ... {value['title']}: {sentence(value)}")
        if event.what != "done" or event.node is None:
            return
        if event.node.kind in TRAINED or now - self._last_line > _QUIET_SECONDS or event.done == event.total:
            self._last_line = self._last_look = now
            self._print(f"{where}  {event.node.title}  {event.seconds:.1f} s  {_left(event.eta_s)}")

    def _print(self, text: str, style: str | None = None) -> None:
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def running_table(values: list[dict[str, Any]]) -> Table:
    """Running nodes, a line each: title, epoch, loss, validation accuracy, time left."""
    table = Table(box=None, show_edge=False, pad_edge=False, show_header=bool(values))
    for name in ("under way", "epoch", "loss", "validation", "time left"):
        table.add_column(name, overflow="fold", no_wrap=name != "under way")
    for value in values:
        table.add_row(value["title"], *describe(value))
    return table


def describe(value: dict[str, Any]) -> tuple[str, str, str, str]:
    """Epoch, loss, validation accuracy and time left of a training; empty where unknown."""
    if "loss" not in value:
        return "", "", "", ""
    accuracy, left = value.get("validation_acc"), value.get("left_s")
    return (
        f"{value['epoch']}/{value['epochs']}",
        f"{value['loss']:.3f}",
        "" if accuracy is None else f"{accuracy:.1%}",
        "" if left is None else clock(left),
    )


def sentence(value: dict[str, Any]) -> str:
    """The output of :func:`describe` as a sentence, for a log."""
    words = ("epoch {}", "loss {}", "validation accuracy {}", "about {} left")
    return ", ".join(text.format(said) for text, said in zip(words, describe(value), strict=True) if said)


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"about {clock(seconds)} left"
