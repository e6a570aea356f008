from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbn_core.nets.spec import NetworkSpec
from tests.support.trial import shallow_networks


@pytest.fixture(scope="package", autouse=True)
def trial_network() -> Iterator[NetworkSpec]:
    """The network of `dbn-bench check`; the tests here have a shallow one."""
    with shallow_networks() as network:
        yield network
