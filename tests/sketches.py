"""Drawing is most of the time that a report takes: tests that are about something else get sketches of its figures.

Figures are composed as always; only Matplotlib's layout and rendering are left out, and a file of a line takes the
place of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

_savefig: Any = Figure.savefig


def _sketch(figure: Figure, path: Path, **_: object) -> None:
    text = f"{path.name}: " + "; ".join(f"{ax.get_title()}, {len(ax.get_children())} artists" for ax in figure.axes)
    path.write_text(text.ljust(200))


@contextmanager
def sketches() -> Iterator[None]:
    """Within it figures are sketched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", _sketch)
        yield


@contextmanager
def drawn() -> Iterator[None]:
    """Within it figures are drawn, also within :func:`sketches`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", _savefig)
        yield
