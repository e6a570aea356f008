"""The commands `score` and `compare`: predictions from anywhere, and paired tests on stored results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.commands.common import (
    STORE,
    Add,
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
from benchmarks.commands.scores import print_json, print_table, score_names, score_number
from dbn_core.errors import SpecError

if TYPE_CHECKING:
    from benchmarks.store.artefacts import Store
    from benchmarks.suite.plan import Plan
    from dbn_core.tasks.base import Task


Labels = Annotated[
    Path | None,
    typer.Option(help="Class numbers of the test examples: .npy, .npz, .csv, .parquet or .txt.", metavar="FILE"),
]
KeyOption = Annotated[str | None, typer.Option(help="The array of an .npz that has the predictions.", metavar="NAME")]
Values = Annotated[str, typer.Option(help="auto, probabilities, log-probabilities or logits.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]


def score(
    predictions: Annotated[
        Path | None,
        typer.Argument(
            help="Predictions [N, K], or [M, N, K] for M members: .npz, .npy, .csv or .parquet. An .npz may also hold "
            "labels, validation and validation_labels; a table may have the columns label and member. For a suite that "
            "is not about classes: the .npz that docs/tasks.md describes.",
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
    key: KeyOption = None,
    values: Values = "auto",
    suite: Annotated[
        str | None,
        typer.Option(
            help="Compare the predictions with the deep ensembles of this suite, which has been run or comes with "
            "released results; --label and --size add them to its tables and figures. A suite that is not about "
            "classes scores them with its own data."
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(help="With --suite: what its tables call the method.")] = None,
    size: Annotated[
        int | None, typer.Option(help="With --suite: how many ensemble members the method stands for.", min=1)
    ] = None,
    repetition: Annotated[
        int, typer.Option(help="With --suite: which repetition this is, from 1; add one file after the other.", min=1)
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
        str | None, typer.Option(help="With --suite: take what was added under this label out again.", metavar="LABEL")
    ] = None,
    store: StoreDir = STORE,
    rows: RowsDir = None,
    reports: ReportsDir = None,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Score predictions made anywhere, and add them to a suite if asked to."""
    from benchmarks.results.external.accepted import load_accepted
    from benchmarks.results.external.comparing import ensemble_equivalents
    from benchmarks.results.external.predictions import arrays_of, check_classes, load_predictions
    from benchmarks.store.rows import check_rows, source_of
    from dbn_core.tasks.classification import Classification

    only_suite = {
        **{"--label": label, "--size": size, "--macs": macs, "--params": params, "--remove": remove},
        **{"--train-passes": train_passes, "--train-seconds": train_seconds, "--note": note or None},
        "--repetition": None if repetition == 1 else repetition,
    }
    given = [name for name, value in only_suite.items() if value is not None]
    if suite is None and given:
        raise SpecError(f"{given[0]} says how a row of a suite is made: name the suite with --suite.")
    if predictions is None and remove is None:
        raise SpecError("There is nothing to score: name a file of predictions.")
    if predictions is not None and remove is not None:
        raise SpecError("Adding and removing are two steps: give a file of predictions or --remove, not both.")
    joins = suite is not None and any(name != "--repetition" for name in given)
    if predictions is not None and joins and (label is None or size is None):
        raise SpecError("A row of a suite needs a name and a size: give --label and --size.")
    result: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    task: Task = Classification()
    if suite is not None:
        plan, the_store = load_plan(suite, store, set_, data_root, plugin)
        task = plan.suite.task
    classes = isinstance(task, Classification)
    if predictions is not None and classes:
        loaded = load_predictions(predictions, labels, validation, validation_labels, key, values)
        if suite is not None:
            check_classes(loaded[0], plan.data.classes)
        arrays = arrays_of(*loaded)
        result = _scored(task, arrays, [note for part in loaded if part for note in part.notes])
        if loaded[1] is None:
            result["notes"].append("No validation predictions, so no temperature is fitted and scores are raw only.")
    elif predictions is not None:
        for name, value in {"labels": labels, "validation": validation, "validation-labels": validation_labels,
                            "key": key, "values": None if values == "auto" else values}.items():  # fmt: skip
            if value is not None:
                raise SpecError(
                    f"--{name} is for predicted classes, and the suite '{plan.suite.name}' is about {task.name}: "
                    "leave it out."
                )
        arrays, held = load_accepted(plan, predictions, repetition - 1)
        result = _scored(task, arrays, [held])
    if result and not json_:
        _print_scores(task, result)
    if suite is not None and joins:
        check_rows(
            output_dirs(plan.suite.name, rows, reports, False)[0],
            plan.suite,
            source_of(suite, overrides(set_, None, False)),
        )
        result |= _change_suite(
            plan, the_store, arrays, remove, *output_dirs(plan.suite.name, rows, reports, False), plugin or [],
            {"label": label, "size": size, "repetition": repetition - 1, "note": note,
             "source": predictions.name if predictions else "",
             "cost": {"params": params, "macs": macs, "student_passes": train_passes, "train_seconds": train_seconds}},
        )  # fmt: skip
        if not json_:
            _print_row(task, result)
    elif suite is not None:
        result["suite"] = plan.suite.name
        if classes:
            equivalents = ensemble_equivalents(plan, the_store, arrays, repetition - 1, str(predictions))
            result["dee"] = {name: vars(dee) for name, dee in equivalents.items()}
            result["max_size"] = max(cell.size for cell in plan.cells if cell.is_reference)
            if not json_:
                _print_equivalents(result)
        if not json_:
            echo("To add a row to its tables and figures, give --label and --size.")
    if json_:
        print_json(result)


def compare(
    a: Annotated[str, typer.Argument(help="A file of predictions or, with --suite, a stored result as LABEL@SIZE.")],
    b: Annotated[str, typer.Argument(help="What A is compared with, of the same kind.")],
    labels: Labels = None,
    key: KeyOption = None,
    values: Values = "auto",
    suite: Annotated[str | None, typer.Option(help="Suite whose stored results are compared.")] = None,
    add: Add = None,
    store: StoreDir = STORE,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Test whether A and B differ: paired t over the examples, and over the repetitions of a suite."""
    from benchmarks.results.external.comparing import compare_files, compare_stored

    if suite is None:
        found = compare_files(Path(a), Path(b), labels, key, values)
    else:
        if labels is not None or key is not None or values != "auto":
            raise SpecError("--labels, --key and --values are for files: leave them out, or leave out --suite.")
        plan, the_store = load_plan(suite, store, set_, data_root, plugin, add)
        found = compare_stored(plan, the_store, a, b)
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


def _change_suite(
    plan: Plan,
    store: Store,
    arrays: Mapping[str, Any],
    remove: str | None,
    rows: Path,
    reports: Path,
    plugins: Sequence[str],
    entry: dict[str, Any],
) -> dict[str, Any]:
    """Add or remove, then write the suite's rows and report again."""
    import pandas as pd

    from benchmarks.results.external.cells import Entry, StatedCost, add_external, own_arrays, remove_external
    from benchmarks.run import Options, run_suite
    from benchmarks.store.released import released_root
    from benchmarks.work.progress import Reporter

    own_arrays(plan, store)  # a suite that was never run has no rows to join or leave
    if remove is not None:
        remove_external(plan, store, remove)
    else:
        add_external(plan, store, Entry(**entry | {"cost": StatedCost(**entry["cost"])}), arrays)
    options = Options(store.root, rows, reports, plugins=plugins, only=(), released=released_root())
    with suppress(OSError, ValueError):  # the report goes on naming the command that made the suite
        meta = json.loads((options.rows_of(plan.suite) / "meta.json").read_text(encoding="utf-8"))
        source = meta.get("definition", {}).get("source", "")
        options = replace(options, command=str(meta.get("command", "")), source=source)
    with Reporter(errors, store.root) as reporter:
        done = run_suite(plan.suite, options, reporter)
    folder = options.rows_of(plan.suite)
    result: dict[str, Any] = {
        "suite": plan.suite.name,
        "rows": str(folder),
        "report": str(reports / plan.suite.name / "report.html"),
    }
    if remove is None:
        summary = pd.read_csv(folder / "summary.csv", converters={"label": str})  # a label "NA" stays one
        mine = (summary["label"] == entry["label"]) & (summary["size"] == entry["size"])
        result["row"] = summary[mine & (summary["family"] == "external")].iloc[0].to_dict()
        sizes = [cell.size for cell in done.plan.cells if cell.is_reference]
        result["max_size"] = max(sizes, default=None)
    return result


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
    if isinstance(scores, ClassScores):
        notes = notes + [f"{line[0].upper()}{line[1:]}" for line in caveats([scores])]
    count = {"examples": len(arrays["test_labels"])} if task.name == "classification" else {}
    return {**count, "metrics": {name: metrics[name] for name in order}, "notes": notes}


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


def _print_equivalents(result: Mapping[str, Any]) -> None:
    from benchmarks.report.tables.formatting import dee_text

    for name, dee in result["dee"].items():
        text = dee_text(dee["value"], dee["low"], dee["high"], result["max_size"])
        echo(f"Deep-ensemble equivalent, {name}: {text}")
    echo(
        f"Paired with the deep ensembles of the suite {result['suite']} over {result['examples']} examples; the "
        "intervals are of 95 % and speak of other examples, not of other trainings."
    )


def _print_row(task: Task, result: Mapping[str, Any]) -> None:
    from benchmarks.report.tables.formatting import dee_text, ratio_text

    if row := result.get("row"):
        known = {"dee_raw": "Deep-ensemble equivalent, raw", "dee_cal": "Deep-ensemble equivalent, calibrated"}
        for column in task.curves:
            value, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
            name = known.get(column, f"Equivalent members of {task.reference_label}")
            echo(f"{name}: {dee_text(value, low, high, result['max_size'])}")
        echo(f"Relative FLOPs: {ratio_text(row['macs_rel'])}; repetitions: {row['n']}")
    echo(f"Rows:   {result['rows']}")
    echo(f"Report: {result['report']}")
