"""``mix``: what an ensemble of stored results would be worth."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.common import STORE, Add, DataRoot, Plugins, Set, StoreDir, echo, load_plan
from benchmarks.commands.display import Json, print_json, print_table, score_number
from dbn_core.errors import SpecError

if TYPE_CHECKING:
    from benchmarks.results.mixtures import ScoredMixture
    from dbn_core.tasks.base import Task

_SIZES = (3, 5, 8)


def mix(
    suite: Annotated[str, typer.Argument(help="A built-in suite of classification, or the path of a .toml file.")],
    results: Annotated[
        list[str] | None,
        typer.Argument(help="Results to average, METHOD@SIZE=WEIGHT, as in DE@2=0.5 'ED@8=0.5'; none: selected."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Select the mixture that costs at most this many times one network.", metavar="X"),
    ] = None,
    reach: Annotated[
        list[int] | None,
        typer.Option(help="Select the cheapest mixture that reaches a deep ensemble of this size; may be repeated."),
    ] = None,
    add: Add = None,
    store: StoreDir = STORE,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Score a weighted mean of stored predictions, or select one.

    Nothing is trained. Selection is greedy, on validation; all scores are of
    the test split. Without results and options, the cheapest mixtures that
    reach DE-3, DE-5 and DE-8 are selected.
    """
    from benchmarks.results.mixtures import MixtureSelection

    if results and (budget is not None or reach):
        raise SpecError("Results are given, so nothing is selected: leave out --budget and --reach.")
    if budget is not None and reach:
        raise SpecError("--budget and --reach are two ways to select: give one of them.")
    plan, the_store = load_plan(suite, store, set_, data_root, plugin, add)
    mixtures = MixtureSelection(plan, the_store)
    found: dict[str, ScoredMixture | None]
    if results:
        found = {"": mixtures.score(dict(map(_weight, results)))}
    elif budget is not None:
        found = {f"at most {budget:g}x": mixtures.best(budget)}
    else:
        sizes = reach or [size for size in _SIZES if size in mixtures.sizes]
        found = {f"reach DE-{size}": mixture for size, mixture in mixtures.cheapest(sizes).items()}
    if json_:
        print_json({aim: mixture and asdict(mixture) for aim, mixture in found.items()})
        return
    print_table(
        ["aim", "FLOPs", "n", "ACC", "NLL", "cNLL", "DEE (raw)", "DEE (calibrated)", "mixture"],
        [(aim, *_cells(mixture, plan.suite.task, max(mixtures.sizes))) for aim, mixture in found.items()],
    )
    if not results:
        echo("Selected on validation, at most one size of a method; scores are of the test split.")


def _weight(text: str) -> tuple[str, float]:
    name, _, weight = text.rpartition("=")
    try:
        return (name, float(weight)) if "@" in name else (text, 1.0)
    except ValueError:
        raise SpecError(f"'{text}' has no weight: write METHOD@SIZE=WEIGHT, as in DE@2=0.5.") from None


def _cells(mixture: ScoredMixture | None, task: Task, largest: int) -> tuple[str, ...]:
    from benchmarks.report.tables.formatting import dee_text

    if mixture is None:
        return (*["–"] * 7, "no cheaper mixture")
    scores = {"acc": mixture.acc, "nll": mixture.nll, "cnll": mixture.cnll}
    return (
        *(f"{mixture.macs_rel:.2f}x", str(mixture.n)),
        *(score_number(task, name, interval.value) for name, interval in scores.items()),
        *(dee_text(dee.value, dee.low, dee.high, largest) for dee in (mixture.dee_raw, mixture.dee_cal)),
        mixture.title,
    )
