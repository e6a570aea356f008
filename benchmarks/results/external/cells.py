"""Predictions made elsewhere as cells of a suite: scored, compared and drawn like those of the suite's methods.

An artefact of kind ``external`` holds the predictions of one (suite, label, size, repetition), with their source and
their cost as stated.  What the user does not state is unknown, never zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import numpy as np
from safetensors.numpy import save

from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Cell, Plan
from dbn_core.errors import DataError, SpecError, did_you_mean
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
        for name, value in self.known().items():
            if not math.isfinite(value) or value <= 0 or (value < 1 and name != "train_seconds"):
                least = "a positive number" if name == "train_seconds" else "a number from 1"
                raise SpecError(f"The cost {name}={value} must be {least}: state it again, or leave it out.")

    def known(self) -> dict[str, float]:
        """What is stated, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


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
        # As the harness stores its own: log-probabilities in single precision, labels as integers.
        arrays = {name: a.astype(np.float32 if a.dtype.kind == "f" else np.int64) for name, a in arrays.items()}
    own = own_arrays(plan, store, entry.repetition)
    arrays = {**arrays, **{name: own[name] for name in ("test_ids",) if name in own}}
    recipe = _of_suite(plan) | {"label": entry.label, "size": entry.size, "repetition": entry.repetition}
    key = digest({"kind": KIND, **recipe})
    record = {"recipe": recipe, "source": entry.source, "note": entry.note, "stated": entry.cost.known()}
    with store.in_use(), store.locked(key, wait_s=-1):
        replaces = store.has(KIND, key)
        store.put(KIND, key, record, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
    return replaces


def remove_external(plan: Plan, store: Store, label: str) -> int:
    """Remove what was added under a label; returns how many results there were.

    Raises:
        SpecError: nothing was added under this label.
        StoreError: ``store gc`` is at work on the store.
    """
    records = _records(plan, store)
    found = [key for key, record in records.items() if record["recipe"]["label"] == label]
    if not found:
        known = sorted({record["recipe"]["label"] for record in records.values()})
        hint = did_you_mean(label, known) or "; no predictions were added to it"
        raise SpecError(f"The suite '{plan.suite.name}' has no added predictions '{label}'{hint}.")
    with store.in_use():
        for key in found:
            store.sidecar_path(KIND, key).unlink(missing_ok=True)
            store.tensors_path(KIND, key).unlink(missing_ok=True)
    return len(found)


def load_external(plan: Plan, store: Store) -> list[Cell]:
    """The cells of added predictions, by label, size and repetition; their keys are of kind ``external``."""
    cells = []
    for key, record in _records(plan, store).items():
        label, size, repetition = (record["recipe"][name] for name in ("label", "size", "repetition"))
        cells.append(Cell(External(), f"{KIND}[{label}]", label, size, repetition, key, None, key, (), (), ()))
    return cells


def kind_of(cell: Cell) -> str:
    """The kind of the artefact that holds a cell's predictions."""
    return KIND if cell.method.name == KIND else "predictions"


def cost_of(store: Store, cell: Cell) -> dict[str, Any]:
    """What a prediction of a cell costs, stored or stated; empty where it is unknown."""
    return stated_cost(store, [cell.cost]) if kind_of(cell) == KIND else store.known("cost", cell.cost)


def stated_cost(store: Store, keys: Iterable[str]) -> dict[str, float]:
    """The cost of a method as stated with any of its repetitions; the first that states a number counts."""
    stated = [store.known(KIND, key).get("stated", {}) for key in keys]
    return {name: value for each in reversed(stated) for name, value in each.items()}


def describe_external(plan: Plan, store: Store) -> list[str]:
    """A line of the report's protocol for each label and size: source, repetitions and stated cost."""
    groups: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for key, record in _records(plan, store).items():
        groups.setdefault((record["recipe"]["label"], record["recipe"]["size"]), {})[key] = record
    lines = []
    for (label, size), of_keys in groups.items():
        records = list(of_keys.values())
        sources = ", ".join(dict.fromkeys(record["source"] for record in records))
        repetitions = ", ".join(str(record["recipe"]["repetition"] + 1) for record in records)
        stated = stated_cost(store, of_keys).items()
        cost = ", ".join(f"{value:,.10g} {_COST_NAMES[name]}" for name, value in stated)
        notes = " ".join(dict.fromkeys(record["note"] for record in records if record["note"]))
        lines.append(
            f"{label}, size {size}: predictions that were made elsewhere ({sources}; as repetition {repetitions}; "
            "compared on the repetitions that both methods have); "
            + (f"cost as stated by whoever added them: {cost}." if cost else "their cost is not stated.")
            + (f" {notes}" if notes else "")
        )
    return lines


def own_arrays(plan: Plan, store: Store, repetition: int | None = None) -> Mapping[str, Array]:
    """What is stored of one of the suite's own methods: its labels are those of the suite, in its order.

    Args:
        repetition: whose split is meant, where each repetition draws its own; None: any.

    Raises:
        SpecError: the store has none.
    """
    same_split = repetition is None or not plan.suite.data.resplits
    for cell in plan.cells:
        if (same_split or cell.repetition == repetition) and store.has("predictions", cell.predictions):
            return store.arrays("predictions", cell.predictions)
    raise SpecError(
        f"The store '{store.root.resolve()}' has no predictions of the suite '{plan.suite.name}': {plan.remedy()}"
    )


def check_arrays(plan: Plan, store: Store, repetition: int, arrays: Mapping[str, Array], source: str) -> None:
    """Check that predictions are of the suite's own examples, in its order.

    Raises:
        SpecError: the suite has no predictions of its own yet.
        DataError: the labels are not those of the suite, or the number of classes differs.
    """
    own, classes = own_arrays(plan, store, repetition), len(plan.data.classes)
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
            other = "validation" if split == "test" else "test"
            swapped = len(given) == len(own[f"{other}_labels"])
            raise DataError(
                f"'{source}' has {len(given)} {split} examples, the suite has {len(expected)}"
                + (f", and {len(given)} for {other}: are the two splits swapped?" if swapped else "")
                + ("" if swapped else f": predict the suite's {split} split, and label each example once.")
            )
        if wrong := int(np.sum(given != expected)):
            raise DataError(
                f"{wrong} of {len(given)} {split} labels given for '{source}' differ from the suite's: predict the "
                f"suite's {split} split in its order."
            )


def _of_suite(plan: Plan) -> dict[str, str]:
    return {"suite": plan.suite.name, "data": plan.data.fingerprint}


def _records(plan: Plan, store: Store) -> dict[str, dict[str, Any]]:
    """The suite's records by key, in the order of label, size and repetition; damaged ones are set aside."""
    records = ((key, store.known(KIND, key)) for _, key in store.artefacts(KIND))
    mine = [pair for pair in records if _of_suite(plan).items() <= pair[1].get("recipe", {}).items()]
    return dict(sorted(mine, key=lambda pair: [pair[1]["recipe"][name] for name in ("label", "size", "repetition")]))
