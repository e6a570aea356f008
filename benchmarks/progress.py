"""What a person sees while a suite runs: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.execute import Event
from benchmarks.plan import TRAINED

# In a log, a line for every training, and one every few seconds for the rest.
_QUIET_SECONDS = 5.0


class Reporter:
    """Callable that a run tells about phases and nodes; a context manager that owns the live display."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._running: dict[str, str] = {}
        self._last_line = 0.0
        self._started = time.monotonic()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, event: str | Event) -> None:
        """Show a phase or a node's start or end."""
        if isinstance(event, str):
            self._stop()
            self.console.print(
                f"[{_clock(time.monotonic() - self._started)}] {event} ...", markup=False, highlight=False
            )
            return
        if event.what == "start":
            self._running[event.node.key] = event.node.title
        else:
            self._running.pop(event.node.key, None)
        if event.what == "failed":
            self.console.print(
                f"FAILED  {event.node.title}: {event.message}", style="bold red", markup=False, soft_wrap=True
            )
        (self._live if self.console.is_terminal else self._line)(event)

    def _live(self, event: Event) -> None:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                console=self.console,
            )
            self._task = self._progress.add_task("", total=event.total, left="")
            self._progress.start()
        running = ", ".join(list(self._running.values())[:2]) or "waiting"
        self._progress.update(
            self._task, completed=event.done, total=event.total, description=running[:32], left=_left(event.eta_s)
        )

    def _line(self, event: Event) -> None:
        now = time.monotonic()
        due = event.node.kind in TRAINED or now - self._last_line > _QUIET_SECONDS or event.done == event.total
        if event.what != "done" or not due:
            return
        self._last_line = now
        where = f"[{_clock(now - self._started)}] {event.done:>4}/{event.total}"
        self.console.print(
            f"{where}  {event.node.title}  {event.seconds:.1f} s  {_left(event.eta_s)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"about {_clock(seconds)} left"
