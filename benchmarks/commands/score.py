"""``score``: predictions made elsewhere, scored and added to a suite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.commands.common import (
    STORE,
    DataRoot,
    Plugins,
    ReportsDir,
    RowsDir,
    Set,
    StoreDir,
    echo,
    errors,
    load_plan,
    output_dirs,
    overrides,
)
from benchmarks.commands.display import (
    EQUIVALENTS,
    ArrayKey,
    Json,
    Labels,
    Macs,
    Params,
    Values,
    caveat_lines,
    number,
    print_json,
    print_table,
    score_names,
    score_number,
)
from dbn_core.errors import SpecError

if TYPE_CHECKING:
    from benchmarks.results.external.predictions import FilePredictions
    from benchmarks.store.artefacts import Store
    from benchmarks.suite.plan import Plan
    from dbn_core.tasks.base import Task


def score(
    predictions: Annotated[
        Path | None,
        typer.Argument(
            help="Predictions [N, K], or [M, N, K] of M members: .npz, .npy, .csv or .parquet.  An .npz may also hold "
            "labels, validation and validation_labels; a table may have the columns label and member.  For a suite "
            "of another task than classification: the .npz that docs/tasks.md describes.",
        ),
    ] = None,
    labels: Labels = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Predictions of the validation examples, for temperature scaling; without them scores are raw only.",
            metavar="FILE",
        ),
    ] = None,
    validation_labels: Annotated[
        Path | None, typer.Option(help="Class numbers of the validation examples.", metavar="FILE")
    ] = None,
    key: ArrayKey = None,
    values: Values = "auto",
    suite: Annotated[
        str | None,
        typer.Option(
            help="Compare the predictions with the deep ensembles of this suite, which has been run or is released; "
            "--label and --size add them to its tables and figures."
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(help="With --suite: what its tables call the method.")] = None,
    size: Annotated[
        int | None,
        typer.Option(
            help="With --suite: how many members the predictions combine; 1 for a single network, 3 for MIMO with "
            "three heads.",
            min=1,
        ),
    ] = None,
    repetition: Annotated[
        int,
        typer.Option(
            help="With --suite: which repetition this is, from 1; a second file for the same one replaces the first.",
            min=1,
        ),
    ] = 1,
    macs: Macs = None,
    params: Params = None,
    train_passes: Annotated[
        float | None,
        typer.Option(
            help="With --suite: examples that went through what was trained.", parser=number, metavar="NUMBER"
        ),
    ] = None,
    train_seconds: Annotated[
        float | None,
        typer.Option(help="With --suite: seconds that training took.", parser=number, metavar="NUMBER"),
    ] = None,
    note: Annotated[str, typer.Option(help="With --suite: a sentence for the report, for example the source.")] = "",
    remove: Annotated[
        str | None,
        typer.Option(help="With --suite: remove what was added under this label.", metavar="LABEL"),
    ] = None,
    store: StoreDir = STORE,
    rows: RowsDir = None,
    reports: ReportsDir = None,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Score predictions made elsewhere, or add them to a suite.

    --suite compares them with the deep ensembles of a suite; with --label and --size they become a row of it.  Scores
    are printed only after all checks have passed.
    """
    from benchmarks.results.external.cells import Entry, StatedCost, add_external, own_arrays, remove_external
    from benchmarks.results.external.comparing import score_against_ensembles
    from benchmarks.store.rows import check_rows, source_of
    from dbn_core.tasks.classification import Classification

    given = {
        **{"--label": label, "--size": size, "--macs": macs, "--params": params, "--remove": remove},
        **{"--train-passes": train_passes, "--train-seconds": train_seconds, "--note": note or None},
        "--repetition": None if repetition == 1 else repetition,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if suite is None and given:
        raise SpecError(f"{next(iter(given))} describes a row of a suite: name the suite with --suite.")
    if (predictions is None) == (remove is None):
        raise SpecError("There is nothing to score: name a file of predictions, or a row with --remove, and not both.")
    changes = bool(given.keys() - {"--repetition"})
    joins = changes and remove is None
    if joins and (label is None or size is None):
        raise SpecError("A row of a suite needs a name and a size: give --label and --size.")
    plan, the_store = load_plan(suite, store, set_, data_root, plugin) if suite else (None, None)
    task: Task = Classification() if plan is None else plan.suite.task
    result: dict[str, Any] = {}
    if predictions is not None:
        files = {"labels": labels, "validation": validation, "validation_labels": validation_labels, "key": key}
        loaded = _load(plan, predictions, repetition - 1, files, values)
        result = _scored(task, loaded)
    if plan is not None and the_store is not None:
        result["suite"] = plan.suite.name
        if changes:
            folders = output_dirs(plan.suite.name, rows, reports, False)
            check_rows(folders[0], plan.suite, source_of(suite or "", overrides(set_, None, False)))
            own_arrays(plan, the_store)  # a suite that was never run has no rows to join or leave
        if remove is not None:
            result["removed"] = remove_external(plan, the_store, remove)
        elif joins:
            cost = StatedCost(params, macs, train_seconds, train_passes)
            entry = Entry(str(label), size or 1, repetition - 1, cost, loaded.source, note)
            result["replaced"] = add_external(plan, the_store, entry, loaded.arrays)
        elif task.name == "classification":
            found = score_against_ensembles(plan, the_store, {repetition - 1: loaded.arrays}, loaded.source)
            result["dee"] = {column: vars(found[column]) for column in task.curves if column in found}
        result["max_size"] = max((cell.size for cell in plan.cells if cell.is_reference), default=None)
        if changes:
            result |= _report_again(plan, the_store, *folders, plugin or [])
        if joins:
            row = result["row"] = _row(Path(result["rows"]), str(label), size or 1)
            ends = {"value": "", "low": "_low", "high": "_high"}
            result["dee"] = {curve: {e: row[f"{curve}{end}"] for e, end in ends.items()} for curve in task.curves}
    if json_:
        print_json(result)
        return
    if predictions is not None:
        _print_scores(task, result)
    _print_suite(task, result)


def _load(plan: Plan | None, file: Path, repetition: int, files: Mapping[str, Any], values: str) -> FilePredictions:
    """The predictions of a file as the task stores them."""
    from benchmarks.results.external.predictions import load_accepted, predictions_of_file

    if plan is not None and plan.suite.task.name != "classification":
        for name, value in {**files, "values": None if values == "auto" else values}.items():
            if value is not None:
                raise SpecError(
                    f"--{name.replace('_', '-')} is for predicted classes, and the suite '{plan.suite.name}' is about "
                    f"{plan.suite.task.name}: leave it out."
                )
        return load_accepted(plan, file, repetition)
    loaded = predictions_of_file(file, **files, values=values, classes=plan.data.classes if plan else ())
    if "validation" not in loaded.arrays:
        loaded.notes.append(
            "No validation predictions, so no temperature is fitted and scores are raw only: give --validation and "
            "--validation-labels, or the arrays validation and validation_labels of an .npz."
        )
    return loaded


def _report_again(plan: Plan, store: Store, rows: Path, reports: Path, plugins: list[str]) -> dict[str, str]:
    """Write the suite's rows and report from what is stored; where they are."""
    from benchmarks.run import Options, run_suite
    from benchmarks.store.released import released_root
    from benchmarks.work.progress import Reporter

    options = Options(store.root, rows, reports, plugins=plugins, only=(), released=released_root())
    with suppress(OSError, ValueError):  # the report still names the command that made the suite
        meta = json.loads((rows / "meta.json").read_text(encoding="utf-8"))
        source = meta.get("definition", {}).get("source", "")
        options = replace(options, command=str(meta.get("command", "")), source=source)
    with Reporter(errors, store.root) as reporter:
        run_suite(plan.suite, options, reporter)
    return {"rows": str(rows), "report": str(reports / plan.suite.name / "report.html")}


def _row(rows: Path, label: str, size: int) -> dict[str, Any]:
    """The new row of the summary."""
    import pandas as pd

    summary = pd.read_csv(rows / "summary.csv", converters={"label": str})  # a label "NA" stays one
    mine = (summary["label"] == label) & (summary["size"] == size) & (summary["family"] == "external")
    return {str(column): value for column, value in summary[mine].iloc[0].items()}


def _scored(task: Task, predictions: FilePredictions) -> dict[str, Any]:
    from benchmarks.results.external.predictions import at_chance_splits
    from benchmarks.statistics import Means
    from dbn_core.tasks.class_scores import ClassScores

    scores, notes = task.score(predictions.arrays), predictions.notes
    metrics: dict[str, dict[str, float | None]] = {}
    for name in score_names(task):
        if name in scores.examples:
            interval = Means(scores.examples[name][None, :, None]).interval()
            metrics[name] = {"value": interval.value, "low": interval.low, "high": interval.high}
        elif name in scores.split:
            metrics[name] = {"value": scores.split[name], "low": None, "high": None}
    result: dict[str, Any] = {"metrics": metrics, "notes": notes}
    if isinstance(scores, ClassScores):
        result = {"examples": len(scores.log_probs)} | result
        notes += caveat_lines(scores)
        notes += at_chance_splits(predictions.arrays)
    return result


def _print_scores(task: Task, result: Mapping[str, Any]) -> None:
    for line in result["notes"]:
        echo(line)
    names, rows = score_names(task), []
    for name, metric in result["metrics"].items():
        value, low, high = (None if end is None else score_number(task, name, end) for end in metric.values())
        rows.append((names[name], value or "", "" if low is None else f"[{low}, {high}]"))
    columns = ["score", "value", "95 % interval over examples"]
    width = 3 if any(row[-1] for row in rows) else 2  # numbers of a whole split have no interval
    print_table(columns[:width], [row[:width] for row in rows])


def _print_suite(task: Task, result: Mapping[str, Any]) -> None:
    """The result in its suite: equivalents, the row, where the report is."""
    from benchmarks.report.tables.formatting import dee_text, ratio_text

    for column, dee in result.get("dee", {}).items():
        name = EQUIVALENTS.get(column, f"Equivalent members of {task.reference_label}")
        echo(f"{name}: {dee_text(dee['value'], dee['low'], dee['high'], result['max_size'])}")
    if row := result.get("row"):
        echo(f"Relative FLOPs: {ratio_text(row['macs_rel'])}; repetitions: {row['n']}")
    elif "dee" in result:
        echo(
            f"Paired with the deep ensembles of the suite {result['suite']} over {result['examples']} examples; the "
            "95 % intervals apply to other examples, not to other trainings."
        )
    if "suite" in result and "report" not in result:
        echo("To add a row to the suite's tables and figures, give --label and --size.")
    if result.get("replaced"):
        echo("These predictions replace those that this label, size and repetition had.")
    if "removed" in result:
        echo(f"Removed {result['removed']} result(s) from the suite {result['suite']}.")
    if "report" in result:
        echo(f"Rows:   {result['rows']}")
        echo(f"Report: {result['report']}")
