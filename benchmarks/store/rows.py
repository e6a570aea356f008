"""The files of a suite's result rows, which are replaced together."""

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
SOME_ROWS = ("records.csv", "shifts.csv", "risk_coverage.csv", "exhibits.safetensors", "rows.parquet")  # optional

# Fields that define a suite; methods, sizes and repetitions may change.
_DEFINING = {"title", "task", "seed", "data", "network", "recipe", "students"}
_PLACES = {"root", "obtain", "download"}  # keys of [data] that locate it


def write_rows(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replace the result files of a folder; files that are not given are removed.

    Rows are read only with ``meta.json``, which is removed first and written last: a killed process leaves no mixture.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    meta = folder / "meta.json"
    try:
        with ExitStack() as files:  # the file opened last is replaced first
            for name in sorted(contents, key=lambda name: name != meta.name):
                files.enter_context(replacing(folder / name)).write(contents[name])
            meta.unlink(missing_ok=True)
            for name in {*ROWS, *SOME_ROWS} - set(contents):
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def source_of(name: str, overrides: Mapping[str, Any]) -> str:
    """Identity of a suite's source: its file or built-in name, and the defining keys of ``--set``."""
    file = str(Path(name).resolve()) if name.endswith(".toml") else name
    places = {f"data.{key}" for key in _PLACES}
    redefined = {key: str(v) for key, v in overrides.items() if key.split(".")[0] in _DEFINING and key not in places}
    return digest([file, redefined])


def definition(suite: Suite, source: str) -> dict[str, Any]:
    """The defining fields of a suite, which ``meta.json`` keeps for :func:`check_rows`."""
    value = suite.model_dump(mode="json", include=_DEFINING)
    value["data"] = {key: inner for key, inner in value["data"].items() if key not in _PLACES}
    return value | {"source": source}


def check_rows(folder: Path, suite: Suite, source: str) -> None:
    """Check that a suite may replace the rows in a folder: its file or its definition is the same.

    Raises:
        SpecError: the rows are of another suite of this name.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        there = meta["definition"]
        if there.pop("source") == source:
            return
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no rows, or unreadable ones
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
    """A nested table as a flat one with dotted keys."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": inner}
    return found
