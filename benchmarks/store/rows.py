"""The files of a suite's result rows: written as a whole, by a run or from a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.suite.schema import Suite
from dbn_core.errors import SpecError, shown
from dbn_core.files import replacing, unwritable
from dbn_core.rng import digest

ROWS = ("rows.csv", "summary.csv", "comparisons.csv", "reliability.csv", "meta.json")
SOME_ROWS = ("records.csv", "shifts.csv", "exhibits.safetensors")  # which not every suite has

# What makes another suite of one that has the same name; methods, sizes and repetitions come and go.
_DEFINING = {"title", "task", "seed", "data", "network", "recipe", "students"}
_PLACES = {"root", "obtain", "download"}  # keys of [data] that say where it is


def write_rows(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replace the result files of a folder; those that are not given are removed.

    Nothing is read without ``meta.json``: it goes before any other file changes and comes when all of them are there,
    so that a process killed in between leaves no mixture.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    meta = folder / "meta.json"
    try:
        with ExitStack() as files:  # what was opened last takes its place first
            for name in sorted(contents, key=lambda name: name != meta.name):
                files.enter_context(replacing(folder / name)).write(contents[name])
            meta.unlink(missing_ok=True)
            for name in {*ROWS, *SOME_ROWS} - set(contents):
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def source_of(name: str, overrides: Mapping[str, Any]) -> str:
    """Identifies where a suite comes from: its file, or its name if it comes along, and what ``--set`` redefines."""
    file = str(Path(name).resolve()) if name.endswith(".toml") else name
    places = {f"data.{key}" for key in _PLACES}
    redefined = {key: str(v) for key, v in overrides.items() if key.split(".")[0] in _DEFINING and key not in places}
    return digest([file, redefined])


def definition(suite: Suite, source: str) -> dict[str, Any]:
    """What ``meta.json`` holds of the definition of a suite, for :func:`check_rows`."""
    value = suite.model_dump(mode="json", include=_DEFINING)
    value["data"] = {key: inner for key, inner in value["data"].items() if key not in _PLACES}
    return value | {"source": source}


def check_rows(folder: Path, suite: Suite, source: str) -> None:
    """Whether a suite may replace the rows in a folder: those of the same file, or of the same definition.

    Raises:
        SpecError: they are of another suite of this name.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        there = meta["definition"]
        if there.pop("source") == source:
            return
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or of an earlier version
        return
    before, now = _flat(there), _flat(definition(suite, source))
    changed = [key for key in sorted({*before, *now} - {"source"}) if before.get(key) != now.get(key)]
    if changed:
        words = [f"{key} {shown(before.get(key), 40)}, now {shown(now.get(key), 40)}" for key in changed[:3]]
        more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise SpecError(
            f"The rows in '{folder}' are of another suite '{suite.name}', made by `{meta.get('command')}` "
            f"({'; '.join(words)}{more}): keep both with --set name=NAME, or with --rows and --reports, or "
            "replace them with `dbn-bench run --replace-rows`."
        )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Tables in tables as one, by dotted keys."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": inner}
    return found
