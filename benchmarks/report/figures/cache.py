"""The figures of a report that stand already, so that only changed ones are drawn again.  Imports no Matplotlib.

Drawing takes seconds, and most renderings change no figure.  A file next to the report holds checksums of each figure
with what it was drawn from: a figure is drawn again if its key is another one, or if its file is missing or altered.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.report.figures.selection import drawn
from benchmarks.report.model import Results
from dbn_core.files import atomic_write

CACHE = ".figures.json"
DRAWN_BY = ("matplotlib", "seaborn", "numpy", "pandas", "pillow", "fonttools")


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


def figures(results: Results, names: Iterable[str], folder: Path) -> dict[str, dict[str, bytes]]:
    """Draw what is not drawn yet into ``folder / "figures"``; return the content of every file, by figure and name."""
    # The key covers what the figures are given: the rest of `meta.json` changes with every run.
    meta = {name: results.meta.get(name) for name in ("dee", "task", "series")}
    shown = replace(drawn(results), comparisons=results.comparisons.iloc[:0], meta=meta)
    frames = [shown.summary, shown.rows, shown.reliability, shown.shifts, shown.risk_coverage]
    tables = [b"" if frame is None else frame.to_csv().encode() for frame in frames]
    arrays = [array.tobytes() for named in shown.samples.values() for array in named.values()]
    key = key_of(DRAWN_BY, *tables, *arrays, repr((shown.meta, shown.published, [*shown.samples])).encode())

    def draw(chosen: list[str]) -> None:
        from benchmarks.report.figures.figures import save_figures

        save_figures(shown, folder / "figures", chosen)

    return draw_missing(folder, names, key, draw)


def draw_missing(
    folder: Path, names: Iterable[str], key: str, draw: Callable[[list[str]], None]
) -> dict[str, dict[str, bytes]]:
    """Draw those figures that do not stand yet; return the content of every file, by figure and file name.

    Args:
        key: of everything that the figures show (:func:`key_of`).
        draw: writes the named figures into ``folder / "figures"``.
    """
    known: set[str] = set()
    with suppress(OSError, ValueError, TypeError):  # a damaged cache is none
        known = set(json.loads((folder / CACHE).read_text(encoding="utf-8")))

    def stamp(path: Path) -> str:
        return hashlib.sha256(f"{key} {path.name} ".encode() + path.read_bytes()).hexdigest()

    files = {name: [folder / "figures" / f"{name}.{end}" for end in ("png", "pdf")] for name in names}
    missing = [name for name, paths in files.items() if not all(p.is_file() and stamp(p) in known for p in paths)]
    if missing:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        _draw_in_parallel(draw, missing)
        write(folder / CACHE, json.dumps([stamp(path) for paths in files.values() for path in paths], indent=1) + "\n")
    return {name: {path.name: path.read_bytes() for path in paths} for name, paths in files.items()}


def _draw_in_parallel(draw: Callable[[list[str]], None], names: list[str]) -> None:
    """Draw with all cores: this process draws a share of the figures, and forks of it draw the others.

    A fork has loaded Matplotlib and the results, which takes a new process longer than drawing.  Figures that a fork
    failed to draw are drawn here, so that the error is raised here.
    """
    import benchmarks.report.figures.figures  # noqa: F401

    # A fork has none of its parent's threads, but their locks; and the libraries of macOS do not support forks.
    forks = min(len(names), os.cpu_count() or 1) if sys.platform == "linux" and threading.active_count() == 1 else 1
    shares = [names[first::forks] for first in range(forks)]
    context: Any = multiprocessing.get_context("fork" if forks > 1 else None)
    others = [(context.Process(target=draw, args=(share,)), share) for share in shares[1:]]
    for process, _ in others:
        process.start()
    draw(shares[0])
    for process, share in others:
        process.join()
        if process.exitcode:
            draw(share)
