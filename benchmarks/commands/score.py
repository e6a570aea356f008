"""``score``: predictions made elsewhere, scored and added to a suite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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

if TYPE_CHECKING:
    from benchmarks.results.external.cells import Entry
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
    macs: Annotated[
        float | None, typer.Option(help="With --suite: multiply-adds of one whole prediction; unknown if not stated.")
    ] = None,
    params: Annotated[float | None, typer.Option(help="With --suite: parameters of the whole predictor.")] = None,
    train_passes: Annotated[
        float | None, typer.Option(help="With --suite: examples that went through what was trained.")
    ] = None,
    train_seconds: Annotated[float | None, typer.Option(help="With --suite: seconds that training took.")] = None,
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
    from benchmarks.results.external.cells import Entry, StatedCost

    of_suite = {
        **{"--label": label, "--size": size, "--macs": macs, "--params": params, "--remove": remove},
        **{"--train-passes": train_passes, "--train-seconds": train_seconds, "--note": note or None},
        "--repetition": None if repetition == 1 else repetition,
    }
    given = [name for name, value in of_suite.items() if value is not None]
    joins = any(name != "--repetition" for name in given)
    if suite is None and given:
        raise SpecError(f"{given[0]} describes a row of a suite: name the suite with --suite.")
    if predictions is None and remove is None:
        raise SpecError("There is nothing to score: name a file of predictions.")
    if predictions is not None and remove is not None:
        raise SpecError("Adding and removing are two steps: give a file of predictions or --remove, not both.")
    if predictions is not None and joins and (label is None or size is None):
        raise SpecError("A row of a suite needs a name and a size: give --label and --size.")
    plan, the_store = load_plan(suite, store, set_, data_root, plugin) if suite else (None, None)
    files = {"labels": labels, "validation": validation, "validation_labels": validation_labels}
    result: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    task = _task(plan)
    if predictions is not None:
        arrays, notes = _load(plan, predictions, repetition, files, key, values)
        result = _scored(task, arrays, notes)
    if plan is not None and the_store is not None:
        folders = output_dirs(plan.suite.name, rows, reports, False)
        result["suite"] = plan.suite.name
        if joins:
            from benchmarks.store.rows import check_rows, source_of

            check_rows(folders[0], plan.suite, source_of(suite or "", overrides(set_, None, False)))
            cost = StatedCost(params, macs, train_seconds, train_passes)
            entry = None
            if predictions is not None and label is not None and size is not None:
                entry = Entry(label, size, repetition - 1, cost, predictions.name, note)
            result |= _change_suite(plan, the_store, arrays, entry or remove or "", *folders, plugin or [])
        elif task.name == "classification":
            result |= _equivalents(plan, the_store, arrays, repetition - 1, str(predictions))
    if json_:
        print_json(result)
        return
    if predictions is not None:
        _print_scores(task, result)
    _print_suite(task, result, joins)


def _task(plan: Plan | None) -> Task:
    from dbn_core.tasks.classification import Classification

    return Classification() if plan is None else plan.suite.task


def _load(
    plan: Plan | None,
    predictions: Path,
    repetition: int,
    files: Mapping[str, Path | None],
    key: str | None,
    values: str,
) -> tuple[dict[str, Any], list[str]]:
    """The arrays of a file as the task stores them, and what to know of them."""
    from benchmarks.results.external.predictions import arrays_of, check_classes, load_accepted, load_predictions

    if plan is None or plan.suite.task.name == "classification":
        loaded = load_predictions(predictions, **files, key=key, values=values)
        if plan is not None:
            check_classes(loaded[0], plan.data.classes)
        notes = [note for part in loaded if part for note in part.notes]
        if loaded[1] is None:
            notes.append(
                "No validation predictions, so no temperature is fitted and scores are raw only: give --validation and "
                "--validation-labels, or the arrays validation and validation_labels of an .npz."
            )
        return arrays_of(*loaded), notes
    options = {**files, "key": key, "values": None if values == "auto" else values}
    for name, value in options.items():
        if value is not None:
            raise SpecError(
                f"--{name.replace('_', '-')} is for predicted classes, and the suite '{plan.suite.name}' is about "
                f"{plan.suite.task.name}: leave it out."
            )
    arrays, held = load_accepted(plan, predictions, repetition - 1)
    return arrays, [held]


def _change_suite(
    plan: Plan,
    store: Store,
    arrays: Mapping[str, Any],
    change: Entry | str,
    rows: Path,
    reports: Path,
    plugins: Sequence[str],
) -> dict[str, Any]:
    """Add an entry, or remove those of a label; then write the suite's rows and report again."""
    import pandas as pd

    from benchmarks.results.external.cells import add_external, own_arrays, remove_external
    from benchmarks.run import Options, run_suite
    from benchmarks.store.released import released_root
    from benchmarks.work.progress import Reporter

    own_arrays(plan, store)  # a suite that was never run has no rows to join or leave
    result: dict[str, Any] = {"report": str(reports / plan.suite.name / "report.html")}
    if isinstance(change, str):
        result["removed"] = remove_external(plan, store, change)
    else:
        result["replaced"] = add_external(plan, store, change, arrays)
    options = Options(store.root, rows, reports, plugins=plugins, only=(), released=released_root())
    folder = options.rows_of(plan.suite)
    with suppress(OSError, ValueError):  # the report still names the command that made the suite
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        source = meta.get("definition", {}).get("source", "")
        options = replace(options, command=str(meta.get("command", "")), source=source)
    with Reporter(errors, store.root) as reporter:
        done = run_suite(plan.suite, options, reporter)
    if not isinstance(change, str):
        summary = pd.read_csv(folder / "summary.csv", converters={"label": str})  # a label "NA" stays one
        mine = (summary["label"] == change.label) & (summary["size"] == change.size)
        result["row"] = summary[mine & (summary["family"] == "external")].iloc[0].to_dict()
        result["max_size"] = max((cell.size for cell in done.plan.cells if cell.is_reference), default=None)
    return result | {"rows": str(folder)}


def _equivalents(
    plan: Plan, store: Store, arrays: Mapping[str, Any], repetition: int, predictions: str
) -> dict[str, Any]:
    from benchmarks.results.external.comparing import ensemble_equivalents

    found = ensemble_equivalents(plan, store, arrays, repetition, predictions)
    max_size = max(cell.size for cell in plan.cells if cell.is_reference)
    return {"dee": {name: vars(dee) for name, dee in found.items()}, "max_size": max_size}


def _scored(task: Task, arrays: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    from benchmarks.statistics import Means
    from dbn_core.tasks.classification import ClassScores, caveats

    scores = task.score(arrays)
    metrics: dict[str, dict[str, float | None]] = {}
    for name, examples in scores.examples.items():
        interval = Means(examples[None, :, None]).interval()
        metrics[name] = {"value": interval.value, "low": interval.low, "high": interval.high}
    for name, value in scores.split.items():
        metrics[name] = {"value": value, "low": None, "high": None}
    order = [name for name in score_names(task) if name in metrics]
    result: dict[str, Any] = {"metrics": {name: metrics[name] for name in order}, "notes": notes}
    if isinstance(scores, ClassScores):
        examples, classes = arrays["test"].shape[-2:]
        result = {"examples": examples} | result
        notes += [f"{line[0].upper()}{line[1:]}" for line in caveats([scores])]
        if (scores.examples["acc"].mean()) * classes <= 1:
            notes.append(
                f"The accuracy is no better than chance with {classes} classes: check the order of the examples and "
                "that of the classes."
            )
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


def _print_suite(task: Task, result: Mapping[str, Any], joins: bool) -> None:
    """The result in its suite: equivalents, the row, where the report is."""
    from benchmarks.report.tables.formatting import dee_text, ratio_text

    for name, dee in result.get("dee", {}).items():
        text = dee_text(dee["value"], dee["low"], dee["high"], result["max_size"])
        echo(f"Deep-ensemble equivalent, {name}: {text}")
    if "dee" in result:
        echo(
            f"Paired with the deep ensembles of the suite {result['suite']} over {result['examples']} examples; the "
            "intervals are of 95 % and speak of other examples, not of other trainings."
        )
    if "suite" in result and not joins:
        echo("To add a row to the suite's tables and figures, give --label and --size.")
    if row := result.get("row"):
        known = {"dee_raw": "Deep-ensemble equivalent, raw", "dee_cal": "Deep-ensemble equivalent, calibrated"}
        for column in task.curves:
            value, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
            name = known.get(column, f"Equivalent members of {task.reference_label}")
            echo(f"{name}: {dee_text(value, low, high, result['max_size'])}")
        echo(f"Relative FLOPs: {ratio_text(row['macs_rel'])}; repetitions: {row['n']}")
    if result.get("replaced"):
        echo("These predictions replace those that this label, size and repetition had.")
    if "removed" in result:
        echo(f"Removed {result['removed']} result(s) from the suite {result['suite']}.")
    if joins:
        echo(f"Rows:   {result['rows']}")
        echo(f"Report: {result['report']}")
