"""Run a suite from end to end: plan, make what is missing, time the predictors, score, write, render."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.environment import hardware, versions
from benchmarks.estimate import announce
from benchmarks.execute import Event, Outcome, make_executor, missing_nodes, run_nodes
from benchmarks.plan import DataFacts, Node, Plan, build_plan
from benchmarks.rows import Results, analyse, load_cells
from benchmarks.store import Store
from benchmarks.suite import Suite, view_count
from dbn_core.errors import BenchError
from dbn_core.files import atomic_write
from dbn_core.registry import canonical
from dbn_core.seeds import digest


@dataclass(frozen=True)
class Options:
    """Where and how a suite runs."""

    store: Path = Path("results/store")
    rows: Path | None = None  # default: results/runs/<suite>
    reports: Path = Path("reports")
    jobs: int = -1
    threads: int = 1
    device: str = "auto"
    plugins: Sequence[str] = ()
    command: str = ""

    def rows_of(self, suite: Suite) -> Path:
        """Folder of the suite's result rows."""
        return self.rows or Path("results/runs") / suite.name


@dataclass
class RunResult:
    """What a run leaves behind."""

    plan: Plan
    outcome: Outcome
    failures: list[dict[str, str]] = field(default_factory=list)
    rows: Path | None = None
    report: list[Path] = field(default_factory=list)


def plan_suite(suite: Suite, store: Store) -> Plan:
    """Plan a suite; loads its data only when the store has not seen them."""
    known, identity = store.note("data"), digest(suite.data.identity())
    if identity not in known:
        data = suite.data.load()
        counts = {name: len(split) for name, split in data.splits.items()}
        facts = DataFacts(data.fingerprint, data.title, data.channels, data.image_size, data.classes, counts)
        known |= {identity: json.loads(json.dumps(asdict(facts)))}
        store.write_note("data", known)
    return build_plan(suite, DataFacts.from_json(known[identity]))


def run_suite(suite: Suite, options: Options, report: Callable[[str | Event], None]) -> RunResult:
    """Run whatever the store lacks and write rows and report.

    Args:
        report: told every phase (a string) and every node (an :class:`Event`).

    Raises:
        BenchError: nothing could be measured at all.
    """
    store = Store(options.store)
    plan = plan_suite(suite, store)
    targets = {key for cell in plan.cells for key in (cell.predictions, cell.cost)}
    nodes = missing_nodes(plan, store, targets)
    if sentence := announce(plan, nodes, options.jobs, options.threads, options.device):
        report(sentence)
    outcome = _make(plan, nodes, options, report) if nodes else Outcome()
    failures = [{"cell": plan.nodes[key].title, "reason": reason} for key, reason in outcome.failures.items()]
    latency = _latency(plan, store, options, report, failures)
    report("Scoring the stored predictions")
    results, problems = load_cells(plan, store)
    failures += [
        {"cell": plan.nodes[key].title, "reason": reason}
        for key, reason in problems.items()
        if key not in outcome.failures
    ]
    if not results:
        first = failures[0] if failures else {"cell": "everything", "reason": "no predictions"}
        raise BenchError(f"Nothing could be measured; the first failure is {first['cell']}: {first['reason']}")
    tables = analyse(plan, results, store, latency["predictors"])
    rows = options.rows_of(suite)
    write_results(rows, tables, _meta(plan, options, latency, failures, outcome))
    report("Rendering tables and figures")
    from benchmarks.report import render

    return RunResult(plan, outcome, failures, rows, render(rows, options.reports / suite.name))


def _make(plan: Plan, nodes: dict[str, Node], options: Options, report: Callable[[str | Event], None]) -> Outcome:
    from benchmarks.work import run_node

    suite_json = plan.suite.model_dump_json()
    log = options.store / "failures.log"

    def submit(executor: Executor, node: Node) -> Future[Any]:
        plugins = tuple(str(Path(p).resolve()) for p in options.plugins)
        return executor.submit(run_node, suite_json, str(options.store), options.device, plugins, options.threads, node)

    def keep_trace(node: Node, error: BaseException) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"--- {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {plan.suite.name}: {node.title}\n")
            file.write("".join(traceback.format_exception(error)))

    with make_executor(options.jobs, options.threads) as (executor, jobs):
        return run_nodes(nodes, submit, executor, jobs, report, keep_trace)


def _latency(
    plan: Plan,
    store: Store,
    options: Options,
    report: Callable[[str | Event], None],
    failures: list[dict[str, str]],
) -> dict[str, Any]:
    """Latencies of all predictors, measured together when no other work runs; stored for this machine."""
    cells = {f"{c.spec}@{c.size}": c for c in plan.cells if c.repetition == 0 and store.has("cost", c.cost)}
    unit = next((name for name, c in cells.items() if c.method.yardstick and c.size == 1), None)
    if unit is None:
        return {"predictors": {}}
    spec = plan.suite.latency
    recipe = {
        "kind": "latency",
        "costs": {name: cell.cost for name, cell in cells.items()},
        "spec": spec.model_dump(),
        "threads": options.threads,
        "device": options.device,
        "hardware": hardware(),
        "torch": versions().get("torch", ""),
    }
    key = digest(recipe)
    if store.has("latency", key):
        return store.value("latency", key)["value"]
    report(f"Timing {len(cells)} predictors side by side")
    try:
        value = _time_predictors(plan, store, options, cells, unit)
    except BenchError as error:
        failures.append({"cell": "latency", "reason": str(error)})
        return {"predictors": {}}
    value |= {"batch_size": spec.batch, "repeats": spec.repeats, "batch_repeats": spec.batch_repeats, "recipe": recipe}
    store.put("latency", key, value)
    return value


def _time_predictors(plan: Plan, store: Store, options: Options, cells: dict[str, Any], unit: str) -> dict[str, Any]:
    import torch

    from benchmarks.work import Bench
    from dbn_core.data.augment import to_float
    from dbn_core.metrics.latency import measure_latency

    torch.set_num_threads(options.threads)
    bench = Bench(plan.suite, store, options.device)
    predictors = {name: bench.predictor(plan.nodes[cell.cost].payload) for name, cell in cells.items()}
    images = to_float(bench.data.test.images.to(bench.device))
    spec = plan.suite.latency
    repeated = images.repeat(-(-spec.batch // len(images)), 1, 1, 1)[: spec.batch]
    one = measure_latency(predictors, unit, images[:1], spec.repeats)
    many = measure_latency(predictors, unit, repeated.contiguous(memory_format=torch.channels_last), spec.batch_repeats)
    measured = {name: {"one": vars(one[name]), "batch": vars(many[name])} for name in cells}
    noisy = any(value["noisy"] for times in measured.values() for value in times.values())
    return {"predictors": measured, "noisy": noisy, "threads": options.threads, "unit": unit}


def _meta(
    plan: Plan, options: Options, latency: dict[str, Any], failures: list[dict[str, str]], outcome: Outcome
) -> dict[str, Any]:
    suite, data = plan.suite, plan.data
    n, m = suite.repetitions, suite.pool.members
    pool = {
        "independent": f"each of the {n} repetitions has a pool of {m} members of its own",
        "shared": f"one pool of {m} members; each of the {n} repetitions draws another source and order of members",
    }[suite.pool.sharing]
    sizes = [cell.size for cell in plan.cells if cell.method.name == "de"]
    device = "cuda" if options.device.startswith("cuda") else "cpu"
    return {
        "suite": suite.name,
        "title": suite.title,
        "description": suite.description,
        "command": options.command or f"dbn-bench run {suite.name}",
        "report_command": f"dbn-bench report {suite.name}" + (f" --rows {options.rows}" if options.rows else ""),
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
            f"Pool: {pool}.",
            _teaching(suite),
            "Validation comes out of train; temperatures are fitted, and epochs kept, on validation alone.",
            "A method of size m draws on the first m members of the pool, the source first.",
            *(
                f"{label}: {canonical(method)}" + (f", teachers: {entry.teachers}" if entry.teachers else "")
                for entry, method, label in suite.entries()
            ),
        ],
        "options": {label: method.config.model_dump() for _, method, label in suite.entries()},
        "versions": versions(),
        "hardware": hardware(device),
        "latency": {k: v for k, v in latency.items() if k not in ("predictors", "recipe")},
        "failures": failures,
        "seconds": outcome.seconds,
        "made": len(outcome.made),
        "dee": {"max_size": max(sizes, default=None)},
        "bootstrap": suite.bootstrap,
        **({"published": suite.published.model_dump(mode="json")} if suite.published else {}),
    }


def _teaching(suite: Suite) -> str:
    count = view_count(suite.students.teachers)
    if count is None:
        return "Teachers run online on every augmented batch."
    return (
        f"Teachers of ED, END², DBN and the like ran once, on {count} seeded augmented copies of the "
        "training split; students see one copy an epoch, in turn. Their cost is charged in full to every method."
    )


def _budget(suite: Suite) -> list[str]:
    recipe = suite.recipe
    return [
        f"Members: {recipe.epochs} epochs, batch {recipe.batch_size}, {recipe.optimizer.upper()} at peak rate "
        f"{recipe.lr:g}, weight decay {recipe.weight_decay:g}, {recipe.schedule} schedule.",
        f"Every trained component of a method (student, bridge with its distillation): {suite.students.epochs} epochs "
        "unless its options below say otherwise; "
        "a Bridge Network's curves take the members' epochs on top. The training-cost figure shows what each spent.",
    ]


def write_results(folder: Path, tables: Results, meta: dict[str, Any]) -> None:
    """Write the result rows of a suite; ``meta.json`` goes last."""
    for name in ("rows", "summary", "comparisons", "reliability"):
        frame: pd.DataFrame = getattr(tables, name)
        atomic_write(folder / f"{name}.csv", frame.to_csv(index=False, float_format="%.6g").encode())
    atomic_write(folder / "meta.json", (json.dumps(meta, indent=1, ensure_ascii=False) + "\n").encode())


def suite_status(plan: Plan, store: Store) -> dict[str, tuple[int, int]]:
    """(done, planned) for each kind of artefact, and for cells."""
    counts: dict[str, tuple[int, int]] = {}
    for node in plan.nodes.values():
        done, planned = counts.get(node.kind, (0, 0))
        counts[node.kind] = done + store.has(node.kind, node.key), planned + 1
    complete = sum(store.has("predictions", c.predictions) and store.has("cost", c.cost) for c in plan.cells)
    return counts | {"cell": (complete, len(plan.cells))}
