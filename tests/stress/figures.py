"""What the reliability tests count, printed at the end of the run: so many kills survived, so many bad inputs answered.

Counts travel in the reports of the tests, which pytest-xdist brings from its workers to the process that prints.
``tests/conftest.py`` imports the two hooks, because that process loads no other conftest.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

# `tox -e stress` tries everything; the short version is part of the ordinary tests.
STRESS = bool(os.environ.get("DBN_STRESS"))

Tally = Callable[..., None]  # tally(what, good=1, of=1)

_KEY = "tally"
_FIGURES: dict[str, tuple[int, int]] = {}  # what: good, of


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """``tally("kills survived", good=1, of=1)`` adds to the figures; call it whenever something is tried."""

    def add(what: str, good: int = 1, of: int = 1) -> None:
        request.node.user_properties.append((_KEY, [what, int(good), int(of)]))

    return add


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "teardown":  # the last report of a test holds all that it counted
        return
    for name, value in report.user_properties:
        if name == _KEY:
            what, good, of = value
            before = _FIGURES.get(what, (0, 0))
            _FIGURES[what] = (before[0] + good, before[1] + of)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if lines := summary(_FIGURES):
        terminalreporter.section("Reliability" if STRESS else "Reliability, short version (all of it: tox -e stress)")
        for line in lines:
            terminalreporter.write_line(line)


def summary(figures: dict[str, tuple[int, int]]) -> list[str]:
    """One line a figure, in columns."""
    width = max(map(len, figures), default=0)
    return [f"  {what:{width}}  {good:6,} of {of:,}" for what, (good, of) in figures.items()]
