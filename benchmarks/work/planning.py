"""Plan a suite with what a store knows of its data, and count how much of the plan is done.  Imports no torch."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Any

from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import DataFacts, Plan, build_plan
from benchmarks.suite.schema import Suite
from dbn_core.data.dataset import fingerprint
from dbn_core.errors import DataError, StoreError
from dbn_core.seeds import digest


def plan_suite(suite: Suite, store: Store) -> Plan:
    """Plan a suite; loads its data only when the store has not seen them.

    Raises:
        DataError: the data are missing, and the store does not know data with the same options from elsewhere.
    """
    return build_plan(suite, DataFacts.from_json(_data_facts(suite, store)))


def _data_facts(suite: Suite, store: Store) -> dict[str, Any]:
    # Where the files are, and when they were written, differs between machines; the options do not.
    source = suite.data.for_repetition(0, suite.seed)
    options = digest(source.model_dump(mode="json", exclude={"root", "title", "obtain", "download"}))
    try:
        key = digest(source.identity())
        if store.intact("data", key):
            return store.value("data", key)["value"]["facts"]
        data = source.load()
    except DataError:
        for kind, key in store.artefacts("data"):
            if store.intact(kind, key) and store.value(kind, key)["value"]["options"] == options:
                return store.value(kind, key)["value"]["facts"]
        raise
    counts = {name: len(split) for name, split in data.splits.items()}
    unseen = None
    if data.unseen is not None:
        counts["unseen"] = len(data.unseen)
        unseen = fingerprint([data.unseen], data.classes, data.mean, data.std, data.flip)
    facts = asdict(
        DataFacts(data.fingerprint, data.title, data.channels, data.image_size, data.classes, counts, unseen)
    )
    with suppress(StoreError):  # only a note that saves reading the data again
        store.put("data", key, {"facts": facts, "options": options})
    return facts


def suite_status(plan: Plan, store: Store) -> dict[str, tuple[int, int]]:
    """(done, planned) for each kind of artefact, and for cells."""
    counts: dict[str, tuple[int, int]] = {}
    for node in plan.nodes.values():
        done, planned = counts.get(node.kind, (0, 0))
        counts[node.kind] = done + store.has(node.kind, node.key), planned + 1
    kinds = {key: node.kind for key, node in plan.nodes.items()}
    complete = sum(all(store.has(kinds[key], key) for key in cell.results) for cell in plan.cells)
    return counts | {"cell": (complete, len(plan.cells))}
