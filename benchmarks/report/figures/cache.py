"""What of a report stands already, so that only what has changed is made again.  Imports no Matplotlib.

Drawing figures and bundling scripts take seconds, and most renderings change neither.  A note beside the report says
what each of the two was made from, and the checksums of what it gave: a part is made again when its key is another one,
or when something of it is missing or altered.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.report.figures.selection import drawn
from benchmarks.report.load import Results
from benchmarks.report.tables.shift import levels
from dbn_core.files import atomic_write

PARTS = ("figures", "scripts")
FIGURES = (
    *("dee_vs_flops", "pareto_flops", "pareto_training", "nll_vs_size", "acc_vs_size", "reliability"),
    "training_cost",
)
SHIFTED = ("severity",)  # of rows with corrupted images
DRAWN_BY = ("matplotlib", "seaborn", "numpy", "pandas", "pillow", "fonttools")


class Note:
    """What is known of the report in a folder: stamps by part; none where the note is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".made.json"
        self._stamps: dict[str, list[str]] = {}
        with suppress(OSError, ValueError, AttributeError):
            noted: Any = json.loads(self._path.read_text(encoding="utf-8"))
            self._stamps = {part: noted[part] for part in PARTS if isinstance(noted.get(part), list)}

    def knows(self, part: str, key: str, name: str, content: bytes) -> bool:
        """Whether a part that was made from ``key`` gave this content under this name."""
        return _stamp(key, name, content) in self._stamps.get(part, ())

    def keep(self, part: str, key: str, contents: Mapping[str, bytes]) -> None:
        """Write down what a part was made from, and what it gave."""
        self._stamps[part] = [_stamp(key, name, content) for name, content in contents.items()]
        write(self._path, json.dumps(self._stamps, indent=1) + "\n")


def _stamp(key: str, name: str, content: bytes) -> str:
    return hashlib.sha256(f"{key} {name} ".encode() + content).hexdigest()


def write(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all, unless the file holds it already.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    content = text.encode()
    if not path.is_file() or path.read_bytes() != content:
        atomic_write(path, content)


def key_of(packages: Iterable[str], *values: bytes) -> str:
    """SHA-256 of values, of the versions of packages, and of the code of the report."""
    found = hashlib.sha256()
    code = [path.read_bytes() for path in sorted(Path(__file__).parents[1].rglob("*.py"))]
    for value in (*(version(package).encode() for package in packages), *code, *values):
        found.update(hashlib.sha256(value).digest())
    return found.hexdigest()


def figures(results: Results, note: Note, folder: Path) -> dict[str, dict[str, bytes]]:
    """Draw what is not drawn yet into ``folder``; return the content of every file, by figure and by file name."""
    # What the figures are given is what the key covers: the rest of `meta.json` changes with every run.
    meta = {"dee": (results.meta.get("dee") or {})}
    shown = replace(drawn(results), comparisons=results.comparisons.iloc[:0], meta=meta)
    frames = [shown.summary, shown.rows, shown.reliability, *(() if shown.shifts is None else (shown.shifts,))]
    tables = (frame.to_csv().encode() for frame in frames)
    key = key_of(DRAWN_BY, *tables, repr((shown.meta, shown.published)).encode())

    def draw(names: list[str]) -> None:
        from benchmarks.report.figures.figures import save_figures

        save_figures(shown, folder, names)

    return standing(note, folder, (*FIGURES, *(SHIFTED if levels(shown) else ())), key, draw)


def standing(
    note: Note, folder: Path, names: Iterable[str], key: str, draw: Callable[[list[str]], None]
) -> dict[str, dict[str, bytes]]:
    """Have those figures drawn that do not stand yet; return the content of every file, by figure and file name.

    Args:
        key: of everything that the figures show (:func:`key_of`).
        draw: writes the named figures into ``folder``.
    """
    names = list(names)
    missing = [
        name
        for name in names
        if not all(
            path.is_file() and note.knows("figures", key, path.name, path.read_bytes()) for path in _files(folder, name)
        )
    ]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        _draw_side_by_side(draw, missing)
    found = {name: {path.name: path.read_bytes() for path in _files(folder, name)} for name in names}
    if missing:
        note.keep("figures", key, {name: content for files in found.values() for name, content in files.items()})
    return found


def _draw_side_by_side(draw: Callable[[list[str]], None], names: list[str]) -> None:
    """Draw with all cores: this process takes a share of the figures, and forks of it take the others.

    A fork has Matplotlib and the results at hand, which a fresh process would load for longer than it draws.  What a
    fork did not draw is drawn here, so that its error is raised here.
    """
    import benchmarks.report.figures.figures  # noqa: F401

    # A fork has none of its parent's threads, but the locks that they hold; and macOS's libraries do not bear it.
    forks = min(len(names), os.cpu_count() or 1) if sys.platform == "linux" and threading.active_count() == 1 else 1
    shares = [names[first::forks] for first in range(forks)]
    context = multiprocessing.get_context("fork" if forks > 1 else None)
    others = [(context.Process(target=draw, args=(share,)), share) for share in shares[1:]]
    for process, _ in others:
        process.start()
    draw(shares[0])
    for process, share in others:
        process.join()
        if process.exitcode:
            draw(share)


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.png", folder / f"{name}.pdf"
