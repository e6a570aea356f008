"""Predictions made outside the harness as cells of a suite: scored, compared and drawn like any other.

A record of kind ``external`` in the store names the predictions and the cost that belong to one (suite, label, size,
repetition).  What the user did not state is unknown, never zero.
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
_COST_WORDS = {
    **{"params": "parameters", "macs": "multiply-adds a prediction"},
    **{"train_seconds": "seconds of training", "student_passes": "examples passed in training"},
}


class External(Method):
    """Predictions that were made elsewhere."""

    name = KIND
    title = "External"

    def predictor(self, size: int, context: Any) -> NoReturn:
        """There is none; only the predictions are known."""
        raise SpecError("Predictions from outside the suite have no predictor: they cannot be run or timed.")


@dataclass(frozen=True)
class StatedCost:
    """What the user says that the method costs; None where they say nothing.

    ``macs`` (multiply-adds) and ``params`` are those of the whole predictor, for one example; ``student_passes`` counts
    examples that went through what was trained.
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
    """Which row of a suite the predictions make; ``repetition`` counts from 0, ``source`` is a file name."""

    label: str
    size: int
    repetition: int
    cost: StatedCost = StatedCost()
    source: str = ""
    note: str = ""


def add_external(plan: Plan, store: Store, entry: Entry, arrays: Mapping[str, Array]) -> None:
    """Store predictions as a cell of the suite; the same label, size and repetition replace what was there.

    Args:
        arrays: as the task stores them; of classification ``test`` [M, N, K] log-probabilities and ``test_labels``
            [N], and ``validation`` and its labels if known.

    Raises:
        SpecError: the label belongs to the suite, or the suite has no predictions of its own yet.
        DataError: the labels are not those of the suite, in its order, or the number of classes differs.
        StoreError: ``store gc`` is at work on the store, or it cannot be written to.
    """
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


def remove_external(plan: Plan, store: Store, label: str) -> int:
    """Take a label's rows out of the suite; returns how many there were.

    Raises:
        SpecError: nothing was added under this label.
        StoreError: ``store gc`` is at work on the store.
    """
    records = _records(plan, store)
    found = {key: record for key, record in records.items() if record["label"] == label}
    if not found:
        known = sorted({record["label"] for record in records.values()})
        hint = did_you_mean(label, known) or ", and nothing else"
        raise SpecError(f"Nothing was added to the suite '{plan.suite.name}' under the label '{label}'{hint}.")
    with store.in_use():
        for key, record in found.items():
            store.sidecar_path(KIND, key).unlink(missing_ok=True)
            _drop(store, record)
    return len(found)


def load_external(plan: Plan, store: Store) -> list[Cell]:
    """The cells that were added to the suite from outside, by label, size and repetition."""
    cells = []
    for record in _ordered(plan, store):
        label = record["label"]
        identity = (f"{KIND}[{label}]", label, record["size"], record["repetition"])
        cells.append(Cell(External(), *identity, record["predictions"], None, record["cost"], (), (), ()))
    return cells


def describe_external(plan: Plan, store: Store) -> list[str]:
    """A line of the report's protocol for each label and size: where it came from, and whose its costs are."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for record in _ordered(plan, store):
        groups.setdefault((record["label"], record["size"]), []).append(record)
    lines = []
    for (label, size), records in groups.items():
        sources = ", ".join(dict.fromkeys(record["source"] for record in records))
        repetitions = ", ".join(str(record["repetition"] + 1) for record in records)
        stated = records[0]["stated"]
        cost = ", ".join(f"{value:,.10g} {_COST_WORDS[name]}" for name, value in stated.items())
        notes = " ".join(dict.fromkeys(record["note"] for record in records if record["note"]))
        lines.append(
            f"{label}, size {size}: predictions made outside this suite ({sources}; as repetition {repetitions}; "
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
    anyones = repetition is None or not plan.suite.data.resplits
    for cell in plan.cells:
        if (anyones or cell.repetition == repetition) and store.has("predictions", cell.predictions):
            return store.arrays("predictions", cell.predictions)
    raise SpecError(
        f"The store '{store.root}' has no predictions of the suite '{plan.suite.name}': "
        f"run it first with `dbn-bench run {plan.suite.name}`."
    )


def _identity(plan: Plan, entry: Entry) -> dict[str, Any]:
    where = {"suite": plan.suite.name, "data": plan.data.fingerprint}
    return where | {"label": entry.label, "size": entry.size, "repetition": entry.repetition}


def check_arrays(plan: Plan, store: Store, repetition: int, arrays: Mapping[str, Array], source: str) -> None:
    """Whether predictions are of the suite's own examples, in its order.

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
                f"'{source}' has {len(given)} {split} examples, the suite has {len(expected)}: predict its own "
                f"{split} split."
            )
        if wrong := int(np.sum(given != expected)):
            raise DataError(
                f"{wrong} of {len(given)} {split} labels given for '{source}' are not the suite's: predict its "
                f"{split} split in its order."
            )


def _compact(array: Array) -> Array:
    """As the harness stores its own: log-probabilities in single precision, labels as integers."""
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)


def _records(plan: Plan, store: Store) -> dict[str, dict[str, Any]]:
    """The suite's records by key; those that are damaged are restored."""
    records = {key: store.known(kind, key) for kind, key in store.artefacts(KIND)}
    records |= _restored(store, {key for key, record in records.items() if not record})
    mine = (plan.suite.name, plan.data.fingerprint)
    return {key: record for key, record in records.items() if record and (record["suite"], record["data"]) == mine}


def _restored(store: Store, damaged: set[str]) -> dict[str, dict[str, Any]]:
    """Records that are damaged now or were set aside, from the copies that predictions have of theirs."""
    aside = {path.name.partition(".")[0]: path for path in store.root.glob(f"{KIND}/??/*.json.damaged")}
    damaged = damaged | {key for key in aside if not store.has(KIND, key)}
    found: dict[str, dict[str, Any]] = {}
    for kind, key in store.own("predictions") if damaged else ():
        value = store.known(kind, key)
        made = value.get("recipe", {})
        if (its := digest({"kind": KIND, **made.get("identity", {})})) in damaged:
            found[its] = value.get("record") or _bare_record(store, key, made)
            with suppress(OSError, StoreError):  # a store that cannot be written to is still read
                store.put(KIND, its, found[its])
                if its in aside:
                    aside[its].unlink()
    return found


def _bare_record(store: Store, predictions: str, made: Mapping[str, Any]) -> dict[str, Any]:
    """The record of predictions that have no copy of it, since an earlier version stored them."""
    cost = digest({"kind": "cost", **made, "stated": {}})
    with suppress(StoreError):
        store.put("cost", cost, {})
    note = "Their record was damaged: what it said of their source and cost is lost."
    said = {"source": "unknown file", "note": note, "stated": {}}
    return {**made["identity"], **said, "predictions": predictions, "cost": cost}


def _ordered(plan: Plan, store: Store) -> list[dict[str, Any]]:
    return sorted(_records(plan, store).values(), key=lambda r: (r["label"], r["size"], r["repetition"]))


def _drop(store: Store, record: Mapping[str, Any], keep: Mapping[str, Any] | None = None) -> None:
    """Delete what a record alone refers to."""
    for kind in ("predictions", "cost"):
        if keep is None or keep[kind] != record[kind]:
            store.sidecar_path(kind, record[kind]).unlink(missing_ok=True)
            store.tensors_path(kind, record[kind]).unlink(missing_ok=True)
