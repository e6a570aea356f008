"""Plan a suite with what a store knows of its data, and count how much of the plan is done.  Imports no torch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import DataFacts, Plan, build_plan
from benchmarks.suite.schema import Suite
from dbn_core.data.dataset import Dataset, fingerprint
from dbn_core.errors import DataError, StoreError
from dbn_core.methods.registry import plugin_of
from dbn_core.rng import digest

# How long a file that another machine wrote may stay unseen here: NFS clients look at a folder again after a minute.
UNSEEN_SECONDS = 60.0


def plan_suite(suite: Suite, store: Store) -> Plan:
    """Plan a suite; loads its data only when the store has not seen them.

    Raises:
        DataError: the data are damaged; or they are not on this machine, and the store does not know exactly one data
            set with the same options from elsewhere.
    """
    facts, notes = _data_facts(suite, store)
    plan = build_plan(suite, DataFacts.from_json(facts))
    plan.notes += notes
    return plan


def _data_facts(suite: Suite, store: Store) -> tuple[dict[str, Any], list[str]]:
    # Where the files are, and when they were written, differs between machines; the options do not.
    source = suite.data.for_repetition(0, suite.seed)
    options = digest(source.model_dump(mode="json", exclude={"root", "title", "obtain", "download"}))
    try:
        key = digest(source.identity())
        if store.intact("data", key):
            return store.value("data", key)["value"]["facts"], []
        data = source.load()
    except DataError as error:
        root = getattr(source, "root", None)
        if root is not None and root.expanduser().exists():
            raise
        return _facts_from_elsewhere(store, options, error)
    counts = {name: len(split) for name, split in data.splits.items()}
    unseen = _unseen_fingerprint(data)
    if data.unseen is not None:
        counts["unseen"] = len(data.unseen)
    facts = asdict(
        DataFacts(data.fingerprint, data.title, data.channels, data.image_size, data.classes, counts, unseen)
    )
    with suppress(StoreError):  # only a note that saves reading the data again
        store.put("data", key, {"facts": facts, "options": options})
    return facts, []


def _facts_from_elsewhere(store: Store, options: str, error: DataError) -> tuple[dict[str, Any], list[str]]:
    """Of data that are not on this machine, what the store knows of the only data with these options."""
    known: dict[str, dict[str, Any]] = {}
    for kind, key in store.artefacts("data"):
        if store.intact(kind, key) and (value := store.value(kind, key)["value"])["options"] == options:
            known[value["facts"]["fingerprint"]] = value["facts"]
    if len(known) > 1:
        marks = ", ".join(sorted(mark[:12] for mark in known))
        raise DataError(
            f"{error} The store has results on several data sets with these options (fingerprints {marks})."
        ) from error
    for mark, facts in known.items():
        title = facts["title"]
        return facts, [
            f"The data are not on this machine: the store's facts are used ({title}, fingerprint {mark[:12]})."
        ]
    raise error


@lru_cache(maxsize=1)
def _unseen_fingerprint(data: Dataset) -> str | None:
    """Fingerprint of the images that no member is trained on; None where there are none."""
    if data.unseen is None:
        return None
    return fingerprint([data.unseen], data.classes, data.mean, data.std, data.flip)


def facts_stated(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe states of its data; a cost that is counted depends on shapes alone."""
    return {name: recipe[name] for name in ("data", "unseen", "image", "classes") if name in recipe}


def facts_of(data: Dataset, names: Iterable[str]) -> dict[str, Any]:
    """Of what recipes state of their data, the facts of these names."""
    facts: dict[str, Callable[[], Any]] = {
        "data": lambda: data.fingerprint,
        "unseen": lambda: _unseen_fingerprint(data),
        "image": lambda: [data.channels, *data.image_size],
        "classes": lambda: data.num_classes,
    }
    return {name: facts[name]() for name in names}


def forget_data(suite: Suite, store: Store) -> None:
    """Remove what the store says of the data, so that the next plan reads them again."""
    with suppress(DataError, OSError):
        key = digest(suite.data.for_repetition(0, suite.seed).identity())
        store.sidecar_path("data", key).unlink(missing_ok=True)


def edited_plugins(plan: Plan, store: Store) -> list[str]:
    """A sentence for each plugin file that was edited since stored results of the plan were made with it."""
    edited: Counter[str] = Counter()
    for node in plan.nodes.values():
        if plugin := plugin_of(node.recipe.get("method", "")):
            file, mark = plugin
            edited[Path(file).name] += store.known(node.kind, node.key).get("plugin_sha256", mark) != mark
    return [
        f"{name} has changed since {count} stored artefacts were made with it, which are used as they are: raise "
        "`version` in the method if its results change"
        for name, count in edited.items()
        if count
    ]


def mixed_numerics(plan: Plan, store: Store) -> list[str]:
    """A sentence when stored artefacts of the plan were made where the same recipe gives other bits; else nothing."""
    known = (store.known(node.kind, node.key).get("numerics") for node in plan.nodes.values() if node.kind != "cost")
    counts = Counter(
        f"torch {made['torch']}, {made['threads']} thread(s), {made['cpu']}, {made['device']}" for made in known if made
    )
    if len(counts) < 2:
        return []
    listed = "; ".join(f"{count} with {how}" for how, count in sorted(counts.items()))
    return [f"Artefacts were made in {len(counts)} ways, between which the last bits of results differ: {listed}."]


def wait_until_seen(store: Store, artefacts: Iterable[tuple[str, str]]) -> None:
    """Wait, :data:`UNSEEN_SECONDS` at most, until this machine sees what another one has made: (kind, key) of each.

    What was set aside as damaged is not waited for.
    """
    end = time.monotonic() + UNSEEN_SECONDS
    for kind, key in artefacts:
        sidecar = store.sidecar_path(kind, key)
        damaged = sidecar.with_name(sidecar.name + ".damaged")
        while not store.has(kind, key) and not damaged.exists() and time.monotonic() < end:
            time.sleep(0.1)


def suite_status(plan: Plan, store: Store) -> dict[str, tuple[int, int]]:
    """(done, planned) for each kind of artefact, and for cells."""
    counts: dict[str, tuple[int, int]] = {}
    for node in plan.nodes.values():
        done, planned = counts.get(node.kind, (0, 0))
        counts[node.kind] = done + store.has(node.kind, node.key), planned + 1
    kinds = {key: node.kind for key, node in plan.nodes.items()}
    complete = sum(all(store.has(kinds[key], key) for key in cell.results) for cell in plan.cells)
    return counts | {"cell": (complete, len(plan.cells))}
