"""Latencies of the predictors of a suite, measured interleaved in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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

    What a stored or released timing has is not measured again, unless ``options.time_again``.  The others are measured
    next to one network, so that their ratios to it can be compared with those.

    Args:
        failures: receives an entry when they cannot be measured.

    Returns:
        ``predictors``: by ``SPEC@SIZE`` and runtime the times at batch 1 and at the suite's batch, and what measured
        them; ``other_machines``: which results were timed on other machines than the first, and on which.
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
    if options.only is not None and not options.only:  # nothing is made
        return _stored_timing(store, recipe) or {"predictors": {}}
    here = {n: c for n, c in cells.items() if all(store.has(*need) for need in plan.nodes[c.cost].needs)}
    labels = {name: f"{cell.label}@{cell.size}" for name, cell in cells.items()}
    known = None
    try:
        with store.locked(digest({**recipe, "costs": {}}), wait_s=-1):  # another run on this store may be timing them
            known = _stored_timing(store, recipe)
            timed = known["recipe"]["costs"] if known and not options.time_again else {}
            missing = [name for name in here if name not in timed]
            if not missing or unit not in here:
                return known or {"predictors": {}}
            report(f"Timing {len(missing)} predictors{' next to one network' if timed else ''}")
            if released := ", ".join(name for name in cells if name not in here and name not in timed):
                report(f"Not timed, since they are released without weights: {released}")
            recipe["costs"] = {name: here[name].cost for name in missing}
            chosen = {name: here[name] for name in dict.fromkeys([unit, *missing])}
            value = _time_predictors(plan, store, options, chosen, unit, report)
            value |= {"batch_size": spec.batch, "recipe": recipe}
            if known:
                value = _joined(known, value, labels) if timed else _joined(value, known, labels)
            store.put("latency", digest(value["recipe"]), value)
            _drop_covered(store, value["recipe"])
    except BenchError as error:
        failures.append({"cell": "latency", "reason": str(error)})
        return known or {"predictors": {}}
    return value


def _stored_timing(store: Store, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The stored timing that covers most of these predictors, of this machine if it covers as many as others."""
    best, most = None, (0, False)
    for _, value in _timings_within(store, store.artefacts("latency"), recipe):
        covers = len(value["recipe"]["costs"]), _measured_by(value["recipe"]) == _measured_by(recipe)
        if covers > most:
            best, most = value, covers
    return best


def _drop_covered(store: Store, recipe: dict[str, Any]) -> None:
    """Delete the store's own older timings, on the same machine, of nothing but what this one has."""
    for key, value in _timings_within(store, list(store.own("latency")), recipe):
        if key != digest(recipe) and _measured_by(value["recipe"]) == _measured_by(recipe):
            store.sidecar_path("latency", key).unlink(missing_ok=True)


def _timings_within(
    store: Store, artefacts: Iterable[tuple[str, str]], recipe: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and value of the timings, as the suite measures them, of some of these predictors and of no others."""
    for kind, key in artefacts:
        if store.intact(kind, key):
            value = store.value(kind, key)["value"]
            its = value["recipe"]
            if its["costs"].items() <= recipe["costs"].items() and its["spec"] == recipe["spec"]:
                yield key, value


def _measured_by(recipe: dict[str, Any]) -> dict[str, Any]:
    """On which machine a timing was measured, and by what."""
    return {name: recipe[name] for name in ("hardware", "torch", "threads", "device")}


def _joined(first: dict[str, Any], other: dict[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """A timing with what only another one has, which may be of another machine."""
    costs, machine = first["recipe"]["costs"], _measured_by(first["recipe"])
    added = [labels[name] for name in other["recipe"]["costs"] if name not in costs]
    groups = list(other.get("other_machines", []))
    if added and _measured_by(other["recipe"]) != machine:
        elsewhere = {name for group in groups for name in group["results"]}
        groups.append({"results": [name for name in added if name not in elsewhere]} | _measured_by(other["recipe"]))
    groups = [group | {"results": [name for name in group["results"] if name in added]} for group in groups]
    groups = first.get("other_machines", []) + [group for group in groups if group["results"]]
    joined = first | ({"other_machines": groups} if groups else {})
    joined["noisy"] = first["noisy"] or other["noisy"]
    joined["predictors"] = other["predictors"] | first["predictors"]
    joined["recipe"] = first["recipe"] | {"costs": other["recipe"]["costs"] | costs}
    return joined


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
