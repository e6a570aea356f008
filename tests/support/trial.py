"""A small world for contract tests: `dbn-bench check` takes networks as deep as the papers'."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.contract.subject import _world
from dbn_core.nets.spec import NetworkSpec
from dbn_core.tasks.classification import Classification


@contextmanager
def shallow_networks() -> Iterator[NetworkSpec]:
    """Within it, methods of classification are tried on networks of 3 blocks instead of the one that it yields."""
    network, data = Classification().trial()
    shallow = NetworkSpec(name="resnet8", channels=4, width=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classification, "trial", lambda self: (shallow, data))
        # Fitting learners to tables takes seconds and is no part of the contract.
        patch.setattr("dbn_core.generative.metrics.tables.table_scores", lambda *_, **__: {"w1_test": 0.0})
        _world.cache_clear()
        yield network
    _world.cache_clear()
