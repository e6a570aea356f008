from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.suite.plan import Plan
from tests.support import tiny


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A folder with store, rows and reports of the suite ``tiny.toml`` in it; not to be changed, but copied."""
    folder = tmp_path_factory.mktemp("tiny-run")
    return folder, tiny.run(folder).plan
