"""Looking after a store: check every artefact, and remove what nobody needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Plan


def verify_store(store: Store) -> Counter[str]:
    """Read every artefact; what is damaged is named in ``store.damaged``, and set aside unless it is released.

    Returns:
        How many are intact, by kind.  An artefact whose tensors are elsewhere counts as ``<kind> (described only)``.
    """
    counts: Counter[str] = Counter()
    own = Store(store.root)
    for kind, key in list(own.own()):
        if own.intact(kind, key):
            counts[kind] += 1
        elif own.described(kind, key):
            counts[f"{kind} (described only)"] += 1
    store.damaged += own.damaged
    for layer in store.released:
        if damage := layer.damage():
            store.damaged += damage
        else:
            counts[f"released: {layer.folder}"] = len(layer.manifest["artefacts"])
    return counts


def collect(store: Store, keep: Iterable[Plan] | None = None) -> dict[str, list[Path]]:
    """Files that can go, by reason; what a live run is making is left alone.

    Args:
        keep: everything that none of these plans needs can go; None: no artefact goes.
    """
    root = store.root
    litter = {
        "temporary files": [p for p in root.rglob(".*.tmp") if _is_idle(store, p.name.lstrip(".").split(".")[0])],
        "damaged artefacts": list(root.rglob("*.damaged")),
        "checkpoints of what is stored or no longer wanted": _old_checkpoints(store, keep),
        "locks and records of runs that ended": _old_notes(store),
    }
    litter["tensors without description"] = [
        path
        for path in root.glob("*/??/*.safetensors")
        if not path.with_suffix(".json").is_file() and _is_idle(store, path.stem)
    ]
    if keep is not None:
        needed = _needed(store, keep)
        litter["artefacts that no kept suite needs"] = [
            path
            for kind, key in store.own()
            if key not in needed and kind not in _ALWAYS_KEPT
            for path in (store.sidecar_path(kind, key), store.tensors_path(kind, key))
            if path.is_file()
        ]
    return litter


# Small, and not part of any plan: facts about data, timings, and predictions that were made elsewhere.
_ALWAYS_KEPT = ("data", "latency", "external")


def _needed(store: Store, plans: Iterable[Plan]) -> set[str]:
    needed = {key for plan in plans for key in plan.nodes}
    for kind, key in store.own("external"):
        value = store.value(kind, key)["value"]
        needed |= {value["predictions"], value["cost"]}
    return needed


def _old_checkpoints(store: Store, keep: Iterable[Plan] | None) -> list[Path]:
    wanted = None if keep is None else {key for plan in keep for key in plan.nodes}
    stored = {key for _, key in store.artefacts()}
    found = []
    for path in (store.root / "checkpoints").glob("*"):
        key = path.name.split(".")[0]
        if (key in stored or (wanted is not None and key not in wanted)) and _is_idle(store, key):
            found.append(path)
    return found


def _old_notes(store: Store) -> list[Path]:
    locks = [path for path in (store.root / "locks").glob("*.lock") if _is_idle(store, path.stem)]
    busy = {path.stem for path in (store.root / "locks").glob("*.lock")} - {path.stem for path in locks}
    return locks + ([] if busy else [*(store.root / "runs").glob("*"), *(store.root / "running").glob("*")])


def _is_idle(store: Store, key: str) -> bool:
    """Whether no live process is making the artefact."""
    if not (store.root / "locks" / f"{key}.lock").is_file():
        return True
    with store.locked(key) as free:
        return free


def remove(litter: dict[str, list[Path]]) -> None:
    """Delete the files."""
    for path in (path for paths in litter.values() for path in paths):
        path.unlink(missing_ok=True)
