"""``compare``: a paired test of two results."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.common import STORE, Add, DataRoot, Plugins, Set, StoreDir, echo, load_plan
from benchmarks.commands.display import (
    ArrayKey,
    Json,
    Labels,
    Values,
    print_json,
    print_table,
    score_names,
    score_number,
)
from dbn_core.errors import SpecError


def compare(
    a: Annotated[
        str,
        typer.Argument(
            help="A file of predictions or, with --suite, a stored result or an entry of the leaderboard as "
            "METHOD@SIZE: label, spec or name."
        ),
    ],
    b: Annotated[str, typer.Argument(help="What A is compared with, of the same kind.")],
    labels: Labels = None,
    key: ArrayKey = None,
    values: Values = "auto",
    suite: Annotated[
        str | None, typer.Option(help="Suite whose stored results are compared: a built-in one, or a .toml file.")
    ] = None,
    add: Add = None,
    store: StoreDir = STORE,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Test whether two results differ.

    Paired Student's t over examples and, with --suite, over repetitions; p-values are corrected by Holm.
    """
    from benchmarks.results.entries import entry_results
    from benchmarks.results.external.comparing import compare_files, compare_stored

    if suite is None:
        if not {Path(a).suffix, Path(b).suffix} & {".npz", ".npy", ".csv", ".parquet", ".txt"}:
            raise SpecError(f"'{a}' and '{b}' are no files of predictions: give --suite SUITE for stored results.")
        found = compare_files(Path(a), Path(b), labels, key, values)
    else:
        if labels is not None or key is not None or values != "auto":
            raise SpecError("--labels, --key and --values are for files: leave them out, or leave out --suite.")
        plan, the_store = load_plan(suite, store, set_, data_root, plugin, add)
        entries = entry_results(plan, the_store, [a, b]) if plan.suite.task.name == "classification" else []
        found = compare_stored(plan, the_store, a, b, entries)
    if json_:
        said = {name: getattr(found, name) for name in ("a", "b", "examples", "repetitions", "notes")}
        rows = [vars(row) for row in found.rows]
        print_json(said | {"rows": rows, "method": found.method, "verdict": found.verdict})
        return
    for line in found.notes:
        echo(line)
    echo(f"A: {found.a}")
    echo(f"B: {found.b}")
    names, lines = score_names(found.task), []
    for row in found.rows:
        number = partial(score_number, found.task, row.metric)
        lines.append(
            (
                *(names[row.metric], number(row.a), number(row.b), number(row.difference, sign="+")),
                f"[{number(row.low, sign='+')}, {number(row.high, sign='+')}]",
                *("–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}" for p in (row.p_value, row.p_holm)),
            )
        )
    print_table(["score", "A", "B", "A - B", "95 % interval", "p", "p (Holm)"], lines)
    echo(found.method)
    echo(found.verdict)
