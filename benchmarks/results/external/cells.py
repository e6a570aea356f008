"""Predictions made elsewhere as cells of a suite: scored, compared and drawn like those of the suite's methods.

A record of kind ``external`` in the store names the predictions and the cost of one (suite, label, size, repetition).
What the user does not state is unknown, never zero.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import numpy as np
from safetensors.numpy import save

from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Cell, Plan
from dbn_core.errors import DataError, SpecError, StoreError, did_you_mean
from dbn_core.methods.method import Method
from dbn_core.metrics.scores import Array
from dbn_core.rng import digest
from dbn_core.tasks.classification import Classification

KIND = "external"
_COST_NAMES = {
    **{"params": "parameters", "macs": "multiply-adds a prediction"},
    **{"train_seconds": "seconds of training", "student_passes": "examples passed in training"},
}


class External(Method):
    """Predictions that were made elsewhere."""

    name = KIND
    title = "External"

    def predictor(self, size: int, context: Any) -> NoReturn:
        """There is none: only the predictions are known."""
        raise SpecError("Predictions that were made elsewhere have no predictor: they cannot be run or timed.")


@dataclass(frozen=True)
class StatedCost:
    """The cost of a method as the user states it; None where it is unknown.

    ``macs`` (multiply-adds) and ``params`` are those of the whole predictor, for one example; ``student_passes`` counts
    the examples that passed through trained modules in training.
    """

    params: float | None = None
    macs: float | None = None
    train_seconds: float | None = None
    student_passes: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SpecError(f"The cost {name}={value} must be a positive number: state it again, or leave it out.")


@dataclass(frozen=True)
class Entry:
    """The row of a suite that predictions become; ``repetition`` counts from 0, ``source`` is a file name."""

    label: str
    size: int
    repetition: int
    cost: StatedCost = StatedCost()
    source: str = ""
    note: str = ""


def add_external(plan: Plan, store: Store, entry: Entry, arrays: Mapping[str, Array]) -> bool:
    """Store predictions as a cell of the suite; returns whether they replace others of this label, size, repetition.

    Args:
        arrays: as the task stores them; of classification ``test`` [M, N, K] log-probabilities and ``test_labels``
            [N], and ``validation`` and its labels if known.

    Raises:
        SpecError: the label belongs to the suite, the suite has no such repetition, or none of its own predictions
            are stored.
        DataError: the labels are not those of the suite, in its order, or the number of classes differs.
        StoreError: ``store gc`` is at work on the store, or it cannot be written to.
    """
    if entry.repetition >= plan.suite.repetitions:
        raise SpecError(
            f"The suite '{plan.suite.name}' has {plan.suite.repetitions} repetition(s), not {entry.repetition + 1}: "
            "choose another with --repetition, or run it with --set repetitions=N."
        )
    if entry.label in {label for _, _, label in plan.suite.entries()}:
        raise SpecError(f"The suite '{plan.suite.name}' has a method '{entry.label}' of its own: choose another label.")
    if not entry.label.strip() or not entry.label.isprintable():
        raise SpecError(f"The label {entry.label!r} is empty or has characters that do not print: choose another.")
    if isinstance(plan.suite.task, Classification):
        check_arrays(plan, store, entry.repetition, arrays, entry.source)
        arrays = {name: _compact(array) for name, array in arrays.items()}
    arrays = {**arrays, **_ids(plan, store, entry.repetition)}
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    made = {"identity": _identity(plan, entry), "sha256": hashlib.sha256(content).hexdigest()}
    cost = {name: value for name, value in asdict(entry.cost).items() if value is not None}
    record = {**_identity(plan, entry), "source": entry.source, "note": entry.note, "stated": cost}
    record |= {kind: digest({"kind": kind, **made, "stated": cost}) for kind in ("predictions", "cost")}
    key = digest({"kind": KIND, **_identity(plan, entry)})
    with store.in_use(), store.locked(key, wait_s=-1):
        old = _records(plan, store).get(key)
        store.put("predictions", record["predictions"], {"recipe": made, "record": record}, content)
        store.put("cost", record["cost"], cost | ({"flops": 2 * cost["macs"]} if "macs" in cost else {}))
        store.put(KIND, key, record)  # last: a record names only what is stored
        if old:
            _drop(store, old, keep=record)
    return bool(old)


def remove_external(plan: Plan, store: Store, label: str) -> int:
    """Remove what was added under a label; returns how many results there were.

    Raises:
        SpecError: nothing was added under this label.
        StoreError: ``store gc`` is at work on the store.
    """
    records = _records(plan, store)
    found = {key: record for key, record in records.items() if record["label"] == label}
    if not found:
        known = sorted({record["label"] for record in records.values()})
        hint = did_you_mean(label, known) or "; no predictions were added to it"
        raise SpecError(f"The suite '{plan.suite.name}' has no added predictions '{label}'{hint}.")
    with store.in_use():
        for key, record in found.items():
            store.sidecar_path(KIND, key).unlink(missing_ok=True)
            _drop(store, record)
    return len(found)


def load_external(plan: Plan, store: Store) -> list[Cell]:
    """The cells of added predictions, by label, size and repetition."""
    cells = []
    for record in _ordered(plan, store):
        label = record["label"]
        identity = (f"{KIND}[{label}]", label, record["size"], record["repetition"])
        cells.append(Cell(External(), *identity, record["predictions"], None, record["cost"], (), (), ()))
    return cells


def describe_external(plan: Plan, store: Store) -> list[str]:
    """A line of the report's protocol for each label and size: source, repetitions and stated cost."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for record in _ordered(plan, store):
        groups.setdefault((record["label"], record["size"]), []).append(record)
    lines = []
    for (label, size), records in groups.items():
        sources = ", ".join(dict.fromkeys(record["source"] for record in records))
        repetitions = ", ".join(str(record["repetition"] + 1) for record in records)
        stated = {name: value for record in reversed(records) for name, value in record["stated"].items()}
        cost = ", ".join(f"{value:,.10g} {_COST_NAMES[name]}" for name, value in stated.items())
        notes = " ".join(dict.fromkeys(record["note"] for record in records if record["note"]))
        lines.append(
            f"{label}, size {size}: predictions that were made elsewhere ({sources}; as repetition {repetitions}; "
            "compared on the repetitions that both methods have); "
            + (f"cost as stated by whoever added them: {cost}." if cost else "their cost is not stated.")
            + (f" {notes}" if notes else "")
        )
    return lines


def suite_labels(plan: Plan, store: Store, repetition: int | None = None) -> dict[str, Array]:
    """``test_labels`` and ``validation_labels`` of the suite, in its order, from its own stored predictions.

    Args:
        repetition: whose split is meant, where each repetition draws its own; None: any.

    Raises:
        SpecError: the store has none.
    """
    arrays = own_arrays(plan, store, repetition)
    return {name: arrays[name] for name in ("test_labels", "validation_labels")}


def _ids(plan: Plan, store: Store, repetition: int) -> dict[str, Array]:
    """``test_ids`` of a repetition's split; nothing where all repetitions have the same."""
    arrays = own_arrays(plan, store, repetition)
    return {name: array for name, array in arrays.items() if name == "test_ids"}


def own_arrays(plan: Plan, store: Store, repetition: int | None = None) -> Mapping[str, Array]:
    """What is stored of one of the suite's own methods; see :func:`suite_labels`."""
    same_split = repetition is None or not plan.suite.data.resplits
    for cell in plan.cells:
        if (same_split or cell.repetition == repetition) and store.has("predictions", cell.predictions):
            return store.arrays("predictions", cell.predictions)
    raise SpecError(
        f"The store '{store.root.resolve()}' has no predictions of the suite '{plan.suite.name}': `{plan.command}` "
        "makes them."
    )


def _identity(plan: Plan, entry: Entry) -> dict[str, Any]:
    where = {"suite": plan.suite.name, "data": plan.data.fingerprint}
    return where | {"label": entry.label, "size": entry.size, "repetition": entry.repetition}


def check_arrays(plan: Plan, store: Store, repetition: int, arrays: Mapping[str, Array], source: str) -> None:
    """Check that predictions are of the suite's own examples, in its order.

    Raises:
        SpecError: the suite has no predictions of its own yet.
        DataError: the labels are not those of the suite, or the number of classes differs.
    """
    own, classes = suite_labels(plan, store, repetition), len(plan.data.classes)
    for split in ("test", "validation"):
        if split not in arrays:
            continue
        given, expected = arrays[f"{split}_labels"], own[f"{split}_labels"]
        if arrays[split].shape[-1] != classes:
            raise DataError(
                f"'{source}' has {arrays[split].shape[-1]} classes, the suite has {classes}: give predictions for "
                "all of its classes, in its order."
            )
        if len(given) != len(expected):
            raise DataError(
                f"'{source}' has {len(given)} {split} examples, the suite has {len(expected)}: predict the suite's "
                f"{split} split."
            )
        if wrong := int(np.sum(given != expected)):
            raise DataError(
                f"{wrong} of {len(given)} {split} labels given for '{source}' differ from the suite's: predict the "
                f"suite's {split} split in its order."
            )


def _compact(array: Array) -> Array:
    """As the harness stores its own predictions: log-probabilities in single precision, labels as integers."""
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)


def _records(plan: Plan, store: Store) -> dict[str, dict[str, Any]]:
    """The suite's records by key; damaged ones are restored."""
    records = {key: store.known(kind, key) for kind, key in store.artefacts(KIND)}
    records |= _restored(store, {key for key, record in records.items() if not record})
    mine = (plan.suite.name, plan.data.fingerprint)
    return {key: record for key, record in records.items() if record and (record["suite"], record["data"]) == mine}


def _restored(store: Store, damaged: set[str]) -> dict[str, dict[str, Any]]:
    """Records that are damaged or were set aside, from the copies that are stored with predictions."""
    aside = {path.name.partition(".")[0]: path for path in store.root.glob(f"{KIND}/??/*.json.damaged")}
    damaged = damaged | {key for key in aside if not store.has(KIND, key)}
    found: dict[str, dict[str, Any]] = {}
    for kind, key in store.own("predictions") if damaged else ():
        value = store.known(kind, key)
        identity = value.get("recipe", {}).get("identity", {})
        if "record" in value and (its := digest({"kind": KIND, **identity})) in damaged:
            found[its] = value["record"]
            with suppress(OSError, StoreError):  # a read-only store can still be read
                store.put(KIND, its, found[its])
                if its in aside:
                    aside[its].unlink()
    return found


def _ordered(plan: Plan, store: Store) -> list[dict[str, Any]]:
    return sorted(_records(plan, store).values(), key=lambda r: (r["label"], r["size"], r["repetition"]))


def _drop(store: Store, record: Mapping[str, Any], keep: Mapping[str, Any] | None = None) -> None:
    """Delete what a record alone refers to."""
    for kind in ("predictions", "cost"):
        if keep is None or keep[kind] != record[kind]:
            store.sidecar_path(kind, record[kind]).unlink(missing_ok=True)
            store.tensors_path(kind, record[kind]).unlink(missing_ok=True)
