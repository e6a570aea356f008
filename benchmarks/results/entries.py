"""Predictions of leaderboard entries: checked, stored in half precision, scored against a suite's deep ensembles."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy.special import log_softmax

from benchmarks.entries import FILE, FOLDER, PREDICTIONS, Figure, LeaderboardEntry, load_entries
from benchmarks.results.external.cells import check_arrays, own_arrays
from benchmarks.results.external.comparing import score_against_ensembles, unplanned_cell
from benchmarks.results.external.predictions import at_chance_splits
from benchmarks.results.pairing import CellResult
from benchmarks.statistics import Interval
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Plan
from benchmarks.suite.schema import Suite
from dbn_core.errors import ArtefactError, DataError, SpecError
from dbn_core.files import atomic_write, unwritable
from dbn_core.metrics.scores import Array, mixture_log_probs

_SPLITS = ("test", "validation")


def check_repetitions(plan: Plan, store: Store, repetitions: Sequence[Mapping[str, Array]], names: list[str]) -> None:
    """Check that sets of predictions can be an entry of a suite: its examples, its order, better than chance.

    Args:
        repetitions: of each, ``test`` [M, N, K] and ``test_labels``, and ``validation`` and its labels if known.
        names: of the files, for error messages.

    Raises:
        SpecError: the suite has fewer repetitions, or no stored predictions of its own.
        DataError: labels, classes or values that cannot be right.
    """
    if len(repetitions) > plan.suite.repetitions:
        raise SpecError(
            f"There are {len(repetitions)} files, and the suite '{plan.suite.name}' has {plan.suite.repetitions} "
            "repetitions to pair them with: leave out the others."
        )
    if 0 < sum("validation" in arrays for arrays in repetitions) < len(repetitions):
        raise DataError("Some files come with validation predictions and others do not: give them for all or none.")
    for number, (arrays, name) in enumerate(zip(repetitions, names, strict=True)):
        check_arrays(plan, store, number, arrays, name)
        if problems := at_chance_splits(arrays):
            raise DataError(f"'{name}': {problems[0]}")
        for other in range(number):
            if np.array_equal(repetitions[other]["test"], arrays["test"]):
                raise DataError(
                    f"'{names[other]}' and '{name}' hold the same predictions: give one file for each training."
                )


def packed(repetitions: Sequence[Mapping[str, Array]]) -> bytes:
    """Sets of predictions as one file: the mixtures of their members, ``test`` [R, N, K] in half precision."""
    splits = [split for split in _SPLITS if split in repetitions[0]]
    mixtures = {split: np.stack([mixture_log_probs(arrays[split]) for arrays in repetitions]) for split in splits}
    return save({split: np.ascontiguousarray(_rounded(array)) for split, array in mixtures.items()})


def _rounded(log_probs: Array) -> Array:
    """In half precision, with the same most probable class where rounding makes two equal."""
    with np.errstate(over="ignore"):  # below -65504 a probability is zero
        rounded, top = log_probs.astype(np.float16), log_probs.argmax(-1)[..., None]
    tied = rounded.argmax(-1)[..., None] != top
    highest = rounded.max(-1, keepdims=True)
    np.put_along_axis(rounded, top, np.where(tied, np.nextafter(highest, np.float16(0)), highest), -1)
    return rounded


def unpacked(content: bytes, plan: Plan, store: Store) -> list[dict[str, Array]]:
    """The sets of predictions of :func:`packed`, normalised, with the labels of the suite.

    Raises:
        ArtefactError: the content does not fit the suite.
        SpecError: the store has no predictions of the suite.
    """
    try:
        arrays = load(content)
    except SafetensorError as error:
        raise ArtefactError(f"The predictions of the entry are no readable safetensors file ({error}).") from None
    found = []
    for number in range(len(arrays["test"])):
        own = own_arrays(plan, store, number)
        one = {name: own[name] for name in ("test_ids",) if name in own}
        for split in (split for split in _SPLITS if split in arrays):
            one[split] = log_softmax(arrays[split][number].astype(np.float64), axis=-1)[None]
            one[f"{split}_labels"] = own[f"{split}_labels"]
            if one[split].shape[1:] != (len(one[f"{split}_labels"]), len(plan.data.classes)):
                raise ArtefactError(
                    f"The {split} predictions of the entry have shape {list(one[split].shape[1:])}, and the suite "
                    f"'{plan.suite.name}' has {len(one[f'{split}_labels'])} examples: submit them again."
                )
        found.append(one)
    return found


def score_repetitions(plan: Plan, store: Store, repetitions: Sequence[Mapping[str, Array]]) -> dict[str, Figure]:
    """The scores of an entry, see :func:`~benchmarks.results.external.comparing.score_against_ensembles`."""
    found = score_against_ensembles(plan, store, dict(enumerate(repetitions)), "the entry")
    return {name: _figure(interval) for name, interval in found.items()}


def rescore(folder: Path, entry: LeaderboardEntry, plan: Plan, store: Store) -> LeaderboardEntry:
    """The entry with the scores of its stored predictions.

    Raises:
        ArtefactError: the predictions are not those that were submitted, or do not fit the suite.
        SpecError: the store lacks deep ensembles of the suite.
    """
    content = (folder / PREDICTIONS).read_bytes()
    if hashlib.sha256(content).hexdigest() != entry.predictions:
        raise ArtefactError(f"'{folder / PREDICTIONS}' is not what {FILE} names: restore it, or submit it again.")
    repetitions = unpacked(content, plan, store)
    return entry.model_copy(update={"scores": score_repetitions(plan, store, repetitions)})


def write_entry(
    root: Path, entry: LeaderboardEntry, predictions: bytes = b"", plugin: Path | None = None, replace: bool = False
) -> Path:
    """Write the folder of an entry, whole or not at all; returns it.

    Raises:
        SpecError: there is one of this name, and ``replace`` is false.
        StoreError: the disk is full, or the folder cannot be written to.
    """
    folder = root / entry.suite / entry.name
    check_free(root, entry.suite, entry.name, replace)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-", ignore_cleanup_errors=True) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            atomic_write(new / FILE, entry.to_json())
            if predictions:
                atomic_write(new / PREDICTIONS, predictions)
            if plugin is not None:
                shutil.copyfile(plugin, new / plugin.name)
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def check_free(root: Path, suite: str, name: str, replace: bool) -> None:
    """Check that an entry may be written under a name.

    Raises:
        SpecError: it is taken.
    """
    folder = root / suite / name
    if folder.exists() and not replace:
        raise SpecError(f"There is an entry '{folder}': choose another --name, or replace it with --replace.")


def check_unlisted(root: Path, suite: Suite, method: str, size: int, name: str) -> None:
    """Check that no row but that of the entry ``name`` has this method and size.

    Raises:
        SpecError: a method of the suite or another entry has.
    """
    if method.casefold() in {label.casefold() for _, _, label in suite.entries()}:
        raise SpecError(f"--method: the suite '{suite.name}' has a method '{method}' of its own: choose another name.")
    for folder, entry in load_entries(root).items():
        same = (entry.suite, entry.method.casefold(), entry.size) == (suite.name, method.casefold(), size)
        if same and entry.name != name:
            raise SpecError(
                f"--method: the entry '{folder}' has the method '{method}' and size {size} too: choose another name, "
                f"or replace it with --name {entry.name} --replace."
            )


def entry_results(plan: Plan, store: Store, names: Sequence[str], root: Path = FOLDER) -> list[CellResult]:
    """The scored predictions of the suite's entries that are called ``METHOD@SIZE`` in ``names``, in either case.

    Raises:
        ArtefactError: an entry is wrong, or its predictions do not fit the suite.
        SpecError: the store has no predictions of the suite.
    """
    found, wanted = [], {name.casefold() for name in names}
    for folder, entry in load_entries(root).items():
        title = f"{entry.method}@{entry.size}"
        if entry.suite == plan.suite.name and entry.predictions and title.casefold() in wanted:
            content = (folder / PREDICTIONS).read_bytes()
            for number, arrays in enumerate(unpacked(content, plan, store)):
                cell = unplanned_cell(number)
                cell = changed(cell, spec=f"entry[{entry.name}]", label=entry.method, size=entry.size)
                found.append(CellResult(cell, plan.suite.task.score(arrays)))
    return found


def _figure(interval: Interval) -> Figure:
    """With six significant digits, as in the rows, so that machines agree."""
    value, low, high = (float(f"{end:.6g}") for end in (interval.value, interval.low, interval.high))
    return Figure(value=value, low=None if np.isnan(low) else low, high=None if np.isnan(high) else high)
