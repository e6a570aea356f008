"""Drawing is most of the time that a report takes: tests that are about something else get sketches of its figures.

Figures are composed as always; only Matplotlib's layout and rendering are left out, and a file of a line takes the
place of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pytest
from matplotlib.figure import Figure

_savefig: Any = Figure.savefig


def _sketch(figure: Figure, file: BinaryIO, format: str, **_: object) -> None:
    text = f"{format}: " + "; ".join(f"{ax.get_title()}, {len(ax.get_children())} artists" for ax in figure.axes)
    file.write(text.ljust(200).encode())


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
