"""Plan a suite with the stored facts about its data, and count how much of the plan is done.  Imports no torch."""

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

# How long a file of another machine may stay invisible here: NFS clients refresh a folder after a minute.
UNSEEN_SECONDS = 60.0


def plan_suite(suite: Suite, store: Store) -> Plan:
    """Plan a suite; loads its data only if the store has no facts about them.

    Raises:
        DataError: the data are damaged; or they are not on this machine, and the store does not have the facts of
            exactly one data set with the same options.
    """
    facts, notes = _data_facts(suite, store)
    plan = build_plan(suite, DataFacts.from_json(facts))
    plan.notes += notes
    return plan


def _data_facts(suite: Suite, store: Store) -> tuple[dict[str, Any], list[str]]:
    # Paths and times of files differ between machines; the options do not.
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
    facts = asdict(data_facts(data))
    with suppress(StoreError):  # only saves reading the data again
        store.put("data", key, {"facts": facts, "options": options})
    return facts, []


def data_facts(data: Dataset) -> DataFacts:
    """What planning needs to know of loaded data."""
    counts = {name: len(split) for name, split in data.splits.items()}
    if data.unseen is not None:
        counts["unseen"] = len(data.unseen)
    shape, unseen = (data.channels, data.image_size), _unseen_fingerprint(data)
    return DataFacts(data.fingerprint, data.title, *shape, data.classes, counts, unseen, data.splitting)


def _facts_from_elsewhere(store: Store, options: str, error: DataError) -> tuple[dict[str, Any], list[str]]:
    """Facts about data that are not on this machine: those of the only stored data set with these options."""
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
    """Fingerprint of the images on which no member is trained; None without such images."""
    if data.unseen is None:
        return None
    return fingerprint([data.unseen], data.classes, data.mean, data.std, data.flip)


def facts_stated(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe states of its data; for a counted cost, shapes alone."""
    return {name: recipe[name] for name in ("data", "unseen", "image", "classes") if name in recipe}


def facts_of(data: Dataset, names: Iterable[str]) -> dict[str, Any]:
    """The facts of these names, as recipes state them."""
    facts: dict[str, Callable[[], Any]] = {
        "data": lambda: data.fingerprint,
        "unseen": lambda: _unseen_fingerprint(data),
        "image": lambda: [data.channels, *data.image_size],
        "classes": lambda: data.num_classes,
    }
    return {name: facts[name]() for name in names}


def forget_data(suite: Suite, store: Store) -> None:
    """Remove the stored facts about the data, so that the next plan reads the data again."""
    with suppress(DataError, OSError):
        key = digest(suite.data.for_repetition(0, suite.seed).identity())
        store.sidecar_path("data", key).unlink(missing_ok=True)


def edited_plugins(plan: Plan, store: Store) -> list[str]:
    """A sentence for each plugin file that was edited after stored results were made with it."""
    edited: Counter[str] = Counter()
    for node in plan.nodes.values():
        if plugin := plugin_of(node.recipe.get("method", "")):
            file, mark = plugin
            edited[Path(file).name] += store.known(node.kind, node.key).get("plugin_sha256", mark) != mark
    return [
        f"{name} has changed since {count} stored artefacts were made with it; they are used unchanged: raise "
        "`version` in the method if its results change"
        for name, count in edited.items()
        if count
    ]


def mixed_numerics(plan: Plan, store: Store) -> list[str]:
    """A sentence if stored artefacts were made by versions or hardware between which bits differ; else nothing."""
    known = (store.known(node.kind, node.key).get("numerics") for node in plan.nodes.values() if node.kind != "cost")
    counts = Counter(
        f"torch {made['torch']}, {made['threads']} thread(s), {made['cpu']}, {made['device']}" for made in known if made
    )
    if len(counts) < 2:
        return []
    listed = "; ".join(f"{count} with {how}" for how, count in sorted(counts.items()))
    return [f"Artefacts were made in {len(counts)} ways, between which the last bits of results differ: {listed}."]


def wait_until_seen(store: Store, artefacts: Iterable[tuple[str, str]]) -> None:
    """Wait up to :data:`UNSEEN_SECONDS` until this machine sees artefacts, (kind, key), that another one made.

    It does not wait for artefacts that were set aside as damaged.
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
