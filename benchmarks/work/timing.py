"""Latencies of the predictors of a suite, measured interleaved in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.environment import hardware, versions
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Plan
from benchmarks.work.make import Options
from benchmarks.work.schedule import Event
from dbn_core.errors import BenchError
from dbn_core.rng import digest

# Rounds in runtimes other than eager, at most: a median of fewer, since each runtime costs as much time as the first.
OTHER_ROUNDS = 12


def predictor_latencies(
    plan: Plan,
    store: Store,
    options: Options,
    report: Callable[[str | Event], None],
    failures: list[dict[str, str]],
) -> dict[str, Any]:
    """Latencies of all predictors, measured when no other work runs and stored for this machine.

    Args:
        failures: receives an entry when they cannot be measured.
    """
    cells = {f"{c.spec}@{c.size}": c for c in plan.cells if c.repetition == 0 and store.has("cost", c.cost)}
    unit = next((name for name, c in cells.items() if not c.method.competes and c.size == 1), None)
    if unit is None:
        return {"predictors": {}}
    spec = plan.suite.latency
    recipe = {
        "kind": "latency",
        "costs": {name: cell.cost for name, cell in cells.items()},
        "spec": spec.model_dump(mode="json"),  # compared with what was stored
        "threads": options.threads,
        "device": options.device,
        "hardware": hardware(),
        "torch": versions().get("torch", ""),
    }
    if len(spec.runtimes) > 1:
        recipe["packages"] = {name: versions().get(name, "") for name in ("onnx", "onnxruntime")}
    key = digest(recipe)
    if store.intact("latency", key):
        return store.value("latency", key)["value"]
    measures = options.only is None or bool(options.only)  # else nothing is made
    here = {n: c for n, c in cells.items() if all(store.has(*need) for need in plan.nodes[c.cost].needs)}
    if not measures or len(here) < len(cells):
        known = _timed_elsewhere(store, recipe)
        if known and (not measures or len(here) <= len(known["recipe"]["costs"])):
            return known
    if not measures or unit not in here:
        return {"predictors": {}}
    recipe["costs"] = {name: cell.cost for name, cell in here.items()}
    key = digest(recipe)
    try:
        with store.locked(key, wait_s=-1):  # another run on this store may be timing them
            if store.intact("latency", key):
                return store.value("latency", key)["value"]
            report(f"Timing {len(here)} predictors")
            if released := ", ".join(name for name in cells if name not in here):
                report(f"Not timed, since they are released without weights: {released}")
            value = _time_predictors(plan, store, options, here, unit, report)
            value["batch_size"] = spec.batch
            store.put("latency", key, value | {"recipe": recipe})
    except BenchError as error:
        failures.append({"cell": "latency", "reason": str(error)})
        return {"predictors": {}}
    return value


def _timed_elsewhere(store: Store, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The stored timing, of another machine or other options, that covers most of these predictors."""
    best, most = None, 0
    for kind, key in store.artefacts("latency"):
        if store.intact(kind, key):
            value = store.value(kind, key)["value"]
            costs = value["recipe"]["costs"]
            same = costs.items() <= recipe["costs"].items() and value["recipe"]["spec"] == recipe["spec"]
            if same and len(costs) > most:
                best, most = value, len(costs)
    return best


def _time_predictors(
    plan: Plan,
    store: Store,
    options: Options,
    cells: dict[str, Any],
    unit: str,
    report: Callable[[str | Event], None],
) -> dict[str, Any]:
    """Latencies of each predictor in each runtime that can run it, at batch 1 and at the suite's batch."""
    import torch

    from benchmarks.work.worker import ArtefactBuilder
    from dbn_core.data.augment import to_float
    from dbn_core.measure.latency import measure_latency
    from dbn_core.measure.runtimes import RuntimeMissingError, prepare, why_missing
    from dbn_core.rng import seeded

    torch.set_num_threads(options.threads)
    builder = ArtefactBuilder(plan.suite, store, options.device)
    images = to_float(builder.data.test.images.to(builder.device))
    spec = plan.suite.latency
    repeated = images.repeat(-(-spec.batch // len(images)), 1, 1, 1)[: spec.batch]
    measured: dict[str, dict[str, Any]] = {name: {} for name in cells}
    with seeded(builder.device, seed=plan.suite.seed, kind="latency"):
        predictors = {name: builder.predictor(plan.nodes[cell.cost].payload) for name, cell in cells.items()}
        for runtime in spec.runtimes:
            if reason := why_missing(runtime, builder.device):
                report(f"Nothing is timed in {runtime}: {reason}")
                continue
            for trace in (True, False):  # one exporter for all, since a traced network is a little slower
                ready, problems = {}, []
                for name, predictor in predictors.items():
                    try:
                        ready[name] = prepare(runtime, predictor, images[:2], options.threads, trace)
                    except RuntimeMissingError as error:
                        problems.append(f"{name} is not timed in {runtime}: {error}")
                        if trace:
                            break
                if not problems:
                    break
            for problem in problems:
                report(problem)
            if unit not in ready:
                continue
            # What torch runs fastest; onnxruntime takes rows of pixels alone.
            order = torch.contiguous_format if runtime == "onnxruntime" else torch.channels_last
            many = repeated.contiguous(memory_format=order)
            one, batch = (
                measure_latency(ready, unit, images_, rounds if runtime == "eager" else min(rounds, OTHER_ROUNDS))
                for images_, rounds in ((many[:1], spec.repeats), (many, spec.batch_repeats))
            )
            for name in ready:
                measured[name][runtime] = {"one": vars(one[name]), "batch": vars(batch[name])}
    noisy = any(t["noisy"] for times in measured.values() for value in times.values() for t in value.values())
    return {"predictors": measured, "noisy": noisy, "threads": options.threads, "unit": unit}
