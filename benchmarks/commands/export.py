"""``export``: a trained method as a folder that runs without this package."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.common import (
    REFERENCE,
    RUNS,
    STORE,
    Add,
    DataRoot,
    Plugins,
    Set,
    StoreDir,
    SuiteName,
    command_line,
    echo,
    load_plan,
)
from dbn_core.errors import SpecError
from dbn_core.rng import digest

if TYPE_CHECKING:
    from benchmarks.suite.plan import Cell


def export(
    suite: SuiteName,
    method: Annotated[
        str, typer.Argument(help="A result of the suite as METHOD@SIZE: label, spec or name of the method.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.  [default: results/exports/SUITE/METHOD-SIZE]")
    ] = None,
    repetition: Annotated[int, typer.Option(help="Which repetition's network, from 1.", min=1)] = 1,
    rows: Annotated[
        Path | None,
        typer.Option(
            help="Folder of result rows for the card.  [default: results/runs/SUITE, results/reference/SUITE]"
        ),
    ] = None,
    add: Add = None,
    store: StoreDir = STORE,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    set_: Set = None,
) -> None:
    """Write a trained method as ONNX and as a torch program.

    The folder also holds labels, a model card and an example script.
    """
    from benchmarks.export.card import Card
    from benchmarks.export.folder import export_cell, find_cell

    plan, the_store = load_plan(suite, store, set_, data_root, plugin, add)
    if plan.suite.task.name != "classification":
        raise SpecError(
            f"`export` writes classifiers, and the suite '{plan.suite.name}' is about {plan.suite.task.name}: "
            "docs/tasks.md says how to run its trained predictors from Python."
        )
    cell = find_cell(plan, method, repetition - 1)
    name = plan.suite.name
    folder = out or Path("results/exports") / name / folder_name(cell, plan.cells)
    card = Card(command_line(), (rows,) if rows else (RUNS / name, REFERENCE / name))
    agreement = export_cell(plan, the_store, cell, folder, card, echo)
    echo(
        f"On {agreement.examples:,} test images onnxruntime differs from torch by at most {agreement.difference:.1e} "
        f"in log-probabilities; {100 * agreement.equal_classes:.2f} % of the predicted classes are equal."
    )
    for line in agreement.member:
        echo(line)
    echo(f"Exported {cell.title} to {folder}")
    echo(f"Try it: python {folder / 'example.py'}")


def folder_name(cell: Cell, cells: Iterable[Cell]) -> str:
    """Label and size in letters that every file system takes; labels that are then alike differ by a digest."""
    short = _short(cell.label)
    alike = any(_short(other.label) == short and other.label != cell.label for other in cells)
    return f"{short}{f'-{digest(cell.label)[:6]}' if alike else ''}-{cell.size}"


def _short(label: str) -> str:
    return re.sub(r"\W+", "-", label.casefold()).strip("-") or "method"
