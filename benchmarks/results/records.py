"""Numbers that methods record in training (``context.record``), from the descriptions of parts.  No torch.

A part without a description, as after the import of predictions alone, has no rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from benchmarks.results.pairing import identity
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Cell, Plan

COLUMNS = ("method", "label", "family", "size", "repetition", "part", "training", "name", "value")


def recorded(plan: Plan, cells: Sequence[Cell], store: Store) -> pd.DataFrame:
    """A row for each cell, part and recorded number.

    ``training`` identifies the training: cells that share a part repeat its numbers.  ``value`` is NaN where the number
    is not finite.
    """
    rows = []
    for cell in cells:
        for key in cell.parts:
            where = {"repetition": cell.repetition, "part": plan.nodes[key].recipe["part"], "training": key[:12]}
            for name, value in store.known("part", key).get("records", {}).items():
                number = np.nan if value is None else value
                rows.append({**identity(cell), **where, "name": name, "value": number})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def meanings(frame: pd.DataFrame, cells: Iterable[Cell]) -> dict[str, dict[str, str]]:
    """Meanings of recorded numbers, by method and name, where ``Method.records`` gives them."""
    found: dict[str, dict[str, str]] = {}
    known = {cell.method.name: cell.method.records for cell in cells}
    for family, name in dict.fromkeys(zip(frame["family"], frame["name"], strict=True)):
        for pattern, meaning in known[family].items():
            if fnmatchcase(name, pattern):
                found.setdefault(family, {})[name] = meaning
                break
    return found
