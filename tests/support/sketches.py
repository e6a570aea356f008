"""Drawing is most of the time that a report takes: tests that are about something else get placeholders of its figures.

A test of what a figure shows calls its function of :data:`benchmarks.report.figures.figures.FIGURES`, and a test of
its files is within :func:`drawn`; a test of the explorable figure in the page is within :func:`explorable`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.report.figures import cache, figures
from benchmarks.report.page import explorer
from dbn_core.files import atomic_write

_REAL = {(figures, "save_figures"): figures.save_figures, (cache, "_draw_in_parallel"): cache._draw_in_parallel}
_CHART = {(explorer, "chart_html"): explorer.chart_html}


def _sketch(results: object, folder: Path, names: Iterable[str]) -> None:
    for name in names:
        for end in ("png", "pdf"):
            atomic_write(folder / f"{name}.{end}", f"{name}, a {end}".ljust(200).encode())


_SKETCHED = {
    (figures, "save_figures"): _sketch,
    (cache, "_draw_in_parallel"): lambda draw, names: draw(names),
    (explorer, "chart_html"): lambda results: '<div id="explore-figure"></div>',
}


@contextmanager
def _with(chosen: Mapping[tuple[ModuleType, str], object]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for (module, name), value in chosen.items():
            patch.setattr(module, name, value)
        yield


def sketches() -> AbstractContextManager[None]:
    """Within it figures are a line of text each, and the explorable one is empty."""
    return _with(_SKETCHED)


def drawn() -> AbstractContextManager[None]:
    """Within it figures are drawn, also within :func:`sketches`."""
    return _with(_REAL)


def explorable() -> AbstractContextManager[None]:
    """Within it pages have their explorable figure, also within :func:`sketches`."""
    return _with(_CHART)
