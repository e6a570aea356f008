from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.contract.subject import _world
from dbn_core.nets.spec import NetworkSpec
from dbn_core.tasks.classification import Classification


@pytest.fixture(scope="package", autouse=True)
def trial_network() -> Iterator[NetworkSpec]:
    """Methods of classification are tried on networks of 3 blocks; `dbn-bench check` has the 15 that are returned."""
    network, data = Classification().trial()
    shallow = NetworkSpec(name="resnet8", channels=4, width=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classification, "trial", lambda self: (shallow, data))
        # Fitting learners to tables takes seconds and is no part of the contract.
        patch.setattr("dbn_core.generative.metrics.tables.table_scores", lambda *_, **__: {"w1_test": 0.0})
        _world.cache_clear()
        yield network
    _world.cache_clear()
