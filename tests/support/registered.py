"""What tests register is forgotten again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dbn_core.methods import registry
from dbn_core.tables import TABLES


@contextmanager
def forgetting() -> Iterator[None]:
    """Forget the methods, networks, tasks and sources that are registered within."""
    registry.methods()
    before, loaded = {id(table): dict(table.entries) for table in TABLES}, dict(registry._LOADED)
    try:
        yield
    finally:
        for table in TABLES:
            table.entries = before.get(id(table), table.entries)
        registry._LOADED.clear()
        registry._LOADED.update(loaded)
