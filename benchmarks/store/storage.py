"""Maintenance of a store: verify every artefact, remove what is not needed."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.store.artefacts import CLEANING, KEY, KINDS, MARK, Store
from benchmarks.suite.plan import TRAINED, Plan
from dbn_core.errors import StoreError

# Only files with these names are ever removed.
_RUN = r".+-\d{8}T\d{6}-.+-\d+"
_HOME = rf"(?:{'|'.join(KINDS)})/[0-9a-f]{{2}}"
_TEMPORARY = re.compile(rf"(?:{_HOME}|checkpoints|runs|running)/\.?(?:{KEY.pattern}|{_RUN})\.(?:.+\.)?tmp")
_DAMAGED = re.compile(rf"{_HOME}/({KEY.pattern})\.(?:json|safetensors)\.damaged")
_TENSORS = re.compile(rf"{_HOME}/({KEY.pattern})\.safetensors")
_CHECKPOINT = re.compile(rf"checkpoints/({KEY.pattern})\.[^/]+")
_NOTE = re.compile(rf"runs/{_RUN}\.(?:json|stop)|running/{KEY.pattern}\.json|locks/use-[0-9a-f]{{32}}\.lock")
_DAY = 86_400.0
UNNEEDED = "artefacts that no kept suite needs"


def verify_store(store: Store) -> Counter[str]:
    """Read every artefact; damaged ones are listed in ``store.damaged`` and, unless released, set aside.

    Predictions without tensors are listed there, too; trained weights may be left out of bundles.

    Returns:
        Number of intact artefacts by kind.  Trainings without tensors count as ``<kind> (described only)``.
    """
    counts: Counter[str] = Counter()
    own = Store(store.root)
    for kind, key in list(own.own()):
        if own.intact(kind, key):
            counts[kind] += 1
        elif own.described(kind, key):
            if kind in TRAINED:
                counts[f"{kind} (described only)"] += 1
            else:
                own.damaged.append(f"The tensors of artefact {kind}/{key} are missing")
    store.damaged += [f"{damage}: run the suite again." for damage in own.damaged]
    for layer in store.released:
        if damage := layer.damage():
            store.damaged += damage
        else:
            counts[f"released: {layer.folder}"] = len(layer.manifest["artefacts"])
    return counts


@contextmanager
def cleaning(store: Store) -> Iterator[None]:
    """Lock a store exclusively, so that files can be removed.

    Raises:
        StoreError: the folder is not marked as a store, or a run, an import or another cleaning uses it.
    """
    if not store.marked:
        raise StoreError(
            f"The folder '{store.root}' has no file {MARK}, so it may be no store: check --store; a run of a suite "
            "marks its store."
        )
    with store.locked(CLEANING) as mine:
        held = CLEANING if not mine else next((name for name, is_held in store.locks().items() if is_held), None)
        if held:
            raise StoreError(
                f"The store '{store.root}' is in use: try again when the run, the import or the cleaning that holds "
                f"'{store.lock_path(held)}' has ended."
            )
        yield


def collect(store: Store, keep: Iterable[Plan] | None = None) -> dict[str, list[Path]]:
    """Files that can be removed, by reason; call it within :func:`cleaning`.

    Unreferenced files younger than a day stay, since they may belong to a copy in progress.  External predictions stay
    even if they are damaged, since no run makes them again.

    Args:
        keep: artefacts that none of these plans needs can be removed; None: no artefact is.
    """
    needed = None if keep is None else {key for plan in keep for key in plan.nodes}
    stored = {key for _, key in store.artefacts()}
    litter = {
        "temporary files": [path for path, _ in _files(store, _TEMPORARY) if _is_old(path)],
        "damaged artefacts": [path for path, _ in _files(store, _DAMAGED) if path.parent.parent.name != "external"],
        "checkpoints of what is stored or no longer wanted": [
            path
            for path, key in _files(store, _CHECKPOINT)
            if key in stored or (needed is not None and key not in needed)
        ],
        "records of runs that ended": [path for path, _ in _files(store, _NOTE)],
        "tensors without description": [
            path for path, _ in _files(store, _TENSORS) if not path.with_suffix(".json").is_file() and _is_old(path)
        ],
    }
    if needed is not None:
        litter[UNNEEDED] = [
            path
            for kind, key in store.own()
            if key not in needed and kind in KINDS and kind not in _ALWAYS_KEPT
            for path in (store.sidecar_path(kind, key), store.tensors_path(kind, key))
            if path.is_file()
        ]
    return litter


# In no plan: facts about data and timings, which are small; external predictions, which no run makes again.
_ALWAYS_KEPT = ("data", "latency", "external")


def _files(store: Store, pattern: re.Pattern[str]) -> Iterator[tuple[Path, str]]:
    """Files whose path in the store matches, with the key in their name, in order."""
    for path in sorted([*store.root.glob("*/*"), *store.root.glob("*/??/*")]):
        if (match := pattern.fullmatch(path.relative_to(store.root).as_posix())) and path.is_file():
            yield path, match[1] if pattern.groups else ""


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _DAY


def unneeded(store: Store, paths: Iterable[Path]) -> list[tuple[str, str, int, int]]:
    """Summary of removable artefacts: data, description, number, bytes; the largest first."""
    facts = [store.known(kind, key).get("facts", {}) for kind, key in store.artefacts("data")]
    titles = {fact.get("fingerprint"): fact.get("title") for fact in facts}
    sizes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for path in paths:
        kind, key = path.parent.parent.name, path.stem
        value: dict[str, Any] = store.known(kind, key)
        data = value.get("recipe", {}).get("data", "")
        what = kind if kind in ("member", "views") else value.get("title", kind).partition(", repetition")[0]
        sizes[titles.get(data) or data[:8], what].update({key: path.stat().st_size})
    found = [(data, what, len(keys), sum(keys.values())) for (data, what), keys in sizes.items()]
    return sorted(found, key=lambda row: -row[-1])


def remove(litter: dict[str, list[Path]]) -> None:
    """Delete the files."""
    for path in (path for paths in litter.values() for path in paths):
        path.unlink(missing_ok=True)
