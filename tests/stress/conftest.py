"""Reliability tests; see :mod:`stress.figures` for what they count and print."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.stress.figures import tally as tally
from tests.stress.support import finish, start_process, write_suite


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a run that nobody disturbed, not to be changed, and the seconds it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_suite(folder)
    start_process(int).join()  # starts the fork server
    started = time.monotonic()
    finish(folder)
    return folder, time.monotonic() - started
