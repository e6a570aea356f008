from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from tests.stress.figures import pytest_runtest_logreport as pytest_runtest_logreport
from tests.stress.figures import pytest_terminal_summary as pytest_terminal_summary
from tests.support.command import DbnBench, runner
from tests.support.registered import forgetting
from tests.support.sketches import sketches

# What the repository has released is no part of a test's store, unless the test says so.
os.environ["DBN_RELEASED"] = ""
# Tests compare bits, and run in parallel.
torch.set_num_threads(1)
# How long an example takes depends on the load of the machine.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(autouse=True, scope="session")
def _figures_are_sketched() -> Iterator[None]:
    with sketches():
        yield


@pytest.fixture
def dbn_bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> DbnBench:
    """Runs ``dbn-bench WORDS`` in this process: its exit code, output and error."""
    return runner(monkeypatch, capsys)


@pytest.fixture
def clean_registry() -> Iterator[None]:
    """Forget the methods that a test registers."""
    with forgetting():
        yield


@pytest.fixture(scope="module")
def clean_registry_of_module() -> Iterator[None]:
    """Forget the methods that a module of tests registers."""
    with forgetting():
        yield
