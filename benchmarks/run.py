"""Run a suite from end to end: plan, make what is missing, time the predictors, score, write, render."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.claims.decide import contrasts
from benchmarks.claims.papers import CLAIMS
from benchmarks.environment import hardware, versions
from benchmarks.results.external.cells import describe_external
from benchmarks.results.records import meanings
from benchmarks.results.rows import ResultTables, analyse, load_cells
from benchmarks.results.shifts import shift_table
from benchmarks.store.artefacts import Store
from benchmarks.store.rows import definition, write_rows
from benchmarks.suite.plan import Plan
from benchmarks.suite.schema import Suite
from benchmarks.suite.specs import on_unseen, view_count
from benchmarks.work.make import Options, make_artefacts, select_cells
from benchmarks.work.planning import mixed_numerics, plan_suite
from benchmarks.work.schedule import Event, Outcome
from benchmarks.work.timing import predictor_latencies
from dbn_core.data.dataset import CUT
from dbn_core.errors import BenchError
from dbn_core.methods.registry import canonical, files_loaded


@dataclass
class RunResult:
    """What a run leaves behind.

    Attributes:
        gone: rows, as ``label@size``, that were there before the run and are not any more.
    """

    plan: Plan
    outcome: Outcome
    failures: list[dict[str, str]] = field(default_factory=list)
    rows: Path | None = None
    report: list[Path] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


def run_suite(suite: Suite, options: Options, report: Callable[[str | Event], None]) -> RunResult:
    """Make what the store lacks, and write rows and report.

    Args:
        report: told every phase (a string) and every node (an :class:`Event`).

    Raises:
        BenchError: nothing could be measured at all.
        InterruptedRunError: Ctrl-C or SIGTERM; the store is in order, rows and report are as they were.
        StoreError: ``store gc`` is at work on the store.
    """
    store = options.open_store()
    with store.in_use():
        return _run_suite(suite, store, options, report)


def _run_suite(suite: Suite, store: Store, options: Options, report: Callable[[str | Event], None]) -> RunResult:
    plan = plan_suite(suite, store)
    chosen = select_cells(plan, options.only)
    sources = [*plan.notes, *_released(plan, store)]
    for line in (*sources, *([] if plan.data.splitting in ("", CUT) else [plan.data.splitting])):
        report(line)
    targets = {key for cell in chosen for key in cell.results}
    outcome, left_out = Outcome(), {key for cell in plan.cells for key in cell.results} - targets
    if chosen:
        outcome = make_artefacts(plan, store, targets, options, report)
    left_out |= {node.key for node in outcome.left}
    failures = [{"cell": plan.nodes[key].title, "reason": reason} for key, reason in outcome.failures.items()]
    latency = {"predictors": {}} if options.lite else predictor_latencies(plan, store, options, report, failures)
    report("Scoring the stored predictions")
    results, problems = load_cells(plan, store)
    shifts, unshifted = shift_table(plan, results, store)
    failures += [
        {"cell": plan.nodes[key].title if key in plan.nodes else "added", "reason": _why_absent(key, left_out, reason)}
        for key, reason in (problems | unshifted).items()
        if key not in outcome.failures
    ]
    if not results:
        first = failures[0] if failures else {"cell": "everything", "reason": "no predictions"}
        raise BenchError(f"Nothing could be measured; the first failure is {first['cell']}: {first['reason']}")
    tables = analyse(plan, results, store, latency["predictors"], contrasts(CLAIMS), ranked=not options.lite)
    tables.shifts = shifts
    rows = options.rows_of(suite)
    gone = _gone(rows, tables.summary)
    meta = _meta(plan, options, latency, failures, outcome) | {"statistics": tables.statistics}
    if len(tables.records):
        meta["recorded"] = meanings(tables.records, plan.cells)
    meta["protocol"] += [*sources, *mixed_numerics(plan, store), *describe_external(plan, store)]
    write_results(rows, tables, meta)
    report("Rendering tables and figures")
    from benchmarks.report import render

    return RunResult(plan, outcome, failures, rows, render(rows, options.reports / suite.name), gone)


def _gone(rows: Path, summary: pd.DataFrame) -> list[str]:
    """The rows of a folder that a new summary lacks, as ``label@size``."""
    try:
        before = pd.read_csv(rows / "summary.csv", dtype=str, keep_default_na=False, usecols=["label", "size"])
    except (OSError, ValueError):  # no rows, or unreadable ones
        return []
    now = set(summary["label"] + "@" + summary["size"].astype(str))
    return [name for name in before["label"] + "@" + before["size"] if name not in now]


def _why_absent(key: str, left_out: set[str], reason: str) -> str:
    return "not made: left out of this run, or its time was up" if key in left_out else reason


def _meta(
    plan: Plan, options: Options, latency: dict[str, Any], failures: list[dict[str, str]], outcome: Outcome
) -> dict[str, Any]:
    suite, data = plan.suite, plan.data
    n, m = suite.repetitions, suite.pool.members
    pool = {
        "independent": f"each of the {n} repetitions has a pool of {m} members of its own",
        "shared": f"one pool of {m} members; each of the {n} repetitions draws another source and order of members",
    }[suite.pool.sharing]
    sizes = [cell.size for cell in plan.cells if cell.is_reference]
    device = "cuda" if options.device.startswith("cuda") else "cpu"
    return {
        "suite": suite.name,
        **({"lite": True} if options.lite else {}),
        **({} if suite.task.name == "classification" else {"task": suite.task.describe()}),
        "title": suite.title,
        "description": suite.description,
        "definition": definition(suite, options.source),
        "command": options.command or f"dbn-bench run {suite.name}",
        **({"plugins": files_loaded(options.plugins)} if options.plugins else {}),
        "report_command": f"dbn-bench report {suite.name}{_rows_option(options.rows, suite.name)}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "dataset": {
            "title": data.title,
            "fingerprint": data.fingerprint,
            **data.counts,
            "classes": len(data.classes),
            "image": f"{data.channels}x{data.image_size[0]}x{data.image_size[1]}",
        },
        "network": suite.network.label,
        "repetitions": suite.repetitions,
        "budget": _budget(suite),
        "protocol": [
            *([f"Pool: {pool}."] if suite.task.trains_members else []),
            *_networks(suite),
            *_splitting(suite),
            *_rounding(suite),
            *_protocol(suite, data.splitting),
            *(
                f"{label}: {canonical(method)}" + (f", teachers: {entry.teachers}" if entry.teachers else "")
                for entry, method, label in suite.entries()
            ),
        ],
        "tuning": {
            label: entry.tuning.model_dump() if entry.tuning else None
            for entry, method, label in suite.entries()
            if method.competes
        },
        **({"series": series} if (series := {label: e.series for e, _, label in suite.entries() if e.series}) else {}),
        "controls": [label for entry, _, label in suite.entries() if entry.control],
        "options": {label: method.config.model_dump() for _, method, label in suite.entries()},
        "versions": versions(),
        "hardware": hardware(device),
        "latency": {k: v for k, v in latency.items() if k not in ("predictors", "recipe")}
        | {"hardware": hardware(device), "torch": versions().get("torch", "")}
        | {name: value for name, value in latency.get("recipe", {}).items() if name in ("hardware", "torch")},
        "failures": failures,
        "seconds": outcome.seconds,
        "made": len(outcome.made),
        "dee": {"max_size": max(sizes, default=None)},
        **({"published": suite.published.model_dump(mode="json")} if suite.published else {}),
        **({"shift": suite.shift.images_key(data.counts["test"])} if suite.shift else {}),
    }


def _rows_option(rows: Path | None, suite: str) -> str:
    if rows is None or rows == Path("results/runs") / suite:
        return ""
    return " --publish" if rows == Path("results/reference") / suite else f" --rows {rows}"


def _protocol(suite: Suite, splitting: str) -> list[str]:
    if suite.task.name != "classification":
        options = ", ".join(f"{name} = {value}" for name, value in suite.task.definition().items())
        return [
            f"Task: {options}.",
            "All methods of a repetition start from the same draws, and are tested on the same.",
        ]
    return [
        _teaching(suite),
        *([f"{splitting}."] if splitting else []),
        "Temperatures are fitted, and epochs kept, on validation alone.",
        "A method of size m draws on the first m members of the pool, the source first.",
    ]


def _splitting(suite: Suite) -> list[str]:
    if not suite.data.resplits:
        return []
    return [
        "Each repetition draws its own stratified split into train, validation and test: results speak of all such "
        "splits of these data, and are compared within a repetition."
    ]


def _released(plan: Plan, store: Store) -> list[str]:
    """A line for each released suite that the store reads through to."""
    lines = []
    lacking = [node for node in plan.nodes.values() if not store.sidecar_path(node.kind, node.key).is_file()]
    for layer in store.released:
        if count := sum(layer.described(node.kind, node.key) for node in lacking):
            commit = layer.manifest["commit"]
            made = f"version {layer.manifest['versions'].get('dbn-bench', 'unknown')}" + (
                commit and f", commit {commit}"
            )
            lines.append(
                f"Not made by this run but released, {count} of {len(plan.nodes)} artefacts: those of the suite "
                f"{layer.manifest['suite']} ({made})."
            )
    return lines


def _networks(suite: Suite) -> list[str]:
    """The networks of given members, where they are several."""
    if not suite.mixes_networks:
        return []
    labels = Counter(suite.network_of(index).label for index in range(suite.pool.members))
    listed = ", ".join(f"{count} of {label}" for label, count in labels.items())
    source = "The source is one of the suite's own network. " if len(suite.sources) < suite.pool.members else ""
    return [
        f"Members: {listed}; students: {suite.network.label}. {source}Costs are sums over the members that run, means "
        "over repetitions, relative to the mean source; latencies are those of the first repetition."
    ]


def _rounding(suite: Suite) -> list[str]:
    lines = []
    if suite.pool.weights == "bf16":
        lines.append("Kernels of a finished member are rounded to bfloat16, and so used by everything that needs it.")
    if suite.predictions == "fp16":
        lines.append("Log-probabilities are rounded to half precision; all scores are those of the rounded ones.")
    return lines


def _teaching(suite: Suite) -> str:
    count = view_count(suite.students.teachers)
    if count is None:
        return "Teachers run online on every augmented batch."
    unseen = "images that no member was trained on"
    images = unseen if on_unseen(suite.students.teachers) else "the training split"
    return (
        f"Teachers of ED, END², DBN and the like ran once, on {count} seeded augmented copies of {images}; students "
        "see one copy an epoch, in turn. Mixup draws one weight for each example of a copy, also where a method's own "
        "rule is one for a batch. Their cost is charged in full to every method."
    )


def _budget(suite: Suite) -> list[str]:
    recipe = suite.recipe
    if not suite.task.trains_members:
        return []
    members = (
        f"Members: {suite.pool.members} given weights files. How they were trained is not known; where their training "
        f"is counted, each counts as the {recipe.epochs} epochs that [recipe] states."
        if suite.pool.checkpoints
        else f"Members: {recipe.epochs} epochs, batch {recipe.batch_size}, {recipe.optimizer.upper()} at peak rate "
        f"{recipe.lr:g}, weight decay {recipe.weight_decay:g}, {recipe.schedule} schedule."
    )
    if suite.task.name != "classification":
        return [members, f"Every student, and every round of one: {suite.students.epochs} epochs."]
    return [
        members,
        f"Every trained component of a method (student, bridge with its distillation): {suite.students.epochs} epochs "
        "unless its options below say otherwise; "
        "a Bridge Network's curves take the members' epochs on top. The training-cost figure shows what each spent.",
        *_precisions(suite),
    ]


def _precisions(suite: Suite) -> list[str]:
    used: dict[str, list[str]] = {} if suite.pool.checkpoints else {suite.recipe.precision: ["members"]}
    for entry, method, label in suite.entries():
        if not any(method.parts(size) for size in entry.sizes):
            continue
        used.setdefault(suite.precision(entry), []).append(label)
    if len(used) < 2:
        return [f"Convolutions and matrix products of all trainings are in {precision}." for precision in used]
    other = "; ".join(f"{', '.join(labels)}: {precision}" for precision, labels in used.items() if labels)
    return [f"Precision of convolutions and matrix products in training: {other}."]


def write_results(folder: Path, tables: ResultTables, meta: dict[str, Any]) -> None:
    """Write the result rows of a suite, and what the report shows with them; all of them or none."""
    contents = {"meta.json": (json.dumps(meta, indent=1, ensure_ascii=False) + "\n").encode()}
    if tables.exhibits:
        from safetensors.numpy import save

        contents["exhibits.safetensors"] = save(tables.exhibits)
    contents["rows.parquet"] = tables.rows.to_parquet(index=False)
    for name in ("rows", "summary", "comparisons", "reliability", "records", "shifts", "risk_coverage"):
        frame: pd.DataFrame | None = getattr(tables, name)
        if frame is not None and not (name == "records" and frame.empty):
            contents[f"{name}.csv"] = frame.to_csv(index=False, float_format="%.6g").encode()
    write_rows(folder, contents)
