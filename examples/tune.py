"""Choose options of a suite's methods on validation, the same number of values for every method.

Each method of the suite that has the options is run with every combination of their values in the first repetitions;
the table gives the mean validation NLL of each, marks the lowest, and is written as CSV where asked.  Nothing of the
test split is read.  What is trained lies in the store, so the suite does not train its chosen values again:

    python examples/tune.py digits-bridge --vary lr=3e-3,1e-2,3e-2,1e-1 --repetitions 5 --table rates.csv

A name with a dot is a key of the suite, such as the members' learning rate:

    python examples/tune.py digits-vit --vary recipe.lr=1e-3,3e-3,1e-2 --label DE --repetitions 2
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from benchmarks.suite.load import load_suite
from benchmarks.suite.schema import Suite
from benchmarks.suite.specs import MethodEntry
from benchmarks.work.make import Options, make_artefacts
from benchmarks.work.planning import plan_suite
from dbn_core.methods.registry import parse_method
from dbn_core.metrics.scores import mixture_log_probs, negative_log_likelihood


class Variant(NamedTuple):
    """An entry of the suite with some options given; its own label."""

    label: str
    given: dict[str, str]
    entry: MethodEntry


def main() -> None:
    """Run every combination, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", help="a built-in suite of classification, or the path of a .toml file")
    parser.add_argument("--vary", action="append", required=True, metavar="OPTION=A,B,...", help="may be repeated")
    parser.add_argument("--repetitions", type=int, default=5, help="the first ones of the suite [%(default)s]")
    parser.add_argument("--final", type=int, metavar="N", help="compare the two best values again in N repetitions")
    parser.add_argument("--label", action="append", help="only this method; may be repeated")
    parser.add_argument("--without", metavar="TEXT", help="leave out methods whose label contains this")
    parser.add_argument("--smallest", action="store_true", help="only the smallest size of each method")
    parser.add_argument("--store", type=Path, default=Path("results/store"))
    parser.add_argument("--jobs", type=int, default=-1, help="worker processes; -1: one a core")
    parser.add_argument("--table", type=Path, help="CSV file for the validation NLLs")
    asked = parser.parse_args()

    grid = {name: values.split(",") for name, _, values in (item.partition("=") for item in asked.vary)}
    keys = {name: grid.pop(name) for name in list(grid) if "." in name}
    if keys and asked.final:
        parser.error("--final compares options of methods: vary keys of the suite without it")
    options, rows = Options(store=asked.store, jobs=asked.jobs), []
    for values in product(*keys.values()):
        changed = dict(zip(keys, values, strict=True))
        suite = load_suite(asked.suite, {"repetitions": asked.repetitions, **changed})
        chosen = [(entry, label) for entry, _, label in suite.entries() if not asked.label or label in asked.label]
        if asked.without:
            chosen = [(entry, label) for entry, label in chosen if asked.without not in label]
        if asked.smallest:
            chosen = [(entry.model_copy(update={"sizes": (min(entry.sizes),)}), label) for entry, label in chosen]
        tried = [variant for entry, label in chosen for variant in variants(entry, label, grid)]
        if not tried:
            parser.error("no method of the suite has these options, or none has this label")
        rows += [row | changed for row in validation_rows(suite, tried, options)]
    table = means(pd.DataFrame(rows), [*keys, *grid])
    best = table.groupby(["label", "size"], sort=False)["validation_nll"].rank(method="first")
    if asked.final:
        # The two best values of each method again, in more repetitions: close calls are not left to few of them.
        kept = set(table["entry"][best <= 2])
        suite = load_suite(asked.suite, {"repetitions": asked.final})
        finalists = [variant for variant in tried if variant.entry.label in kept]
        again = means(pd.DataFrame(validation_rows(suite, finalists, options)), list(grid))
        final = ["final_validation_nll", "final_repetitions"]
        again = again.rename(columns=dict(zip(["validation_nll", "repetitions"], final, strict=True)))
        table = table.merge(again[["entry", "size", *final]], on=["entry", "size"], how="left")
        table["final_repetitions"] = table["final_repetitions"].astype("Int64")
        best = table.groupby(["label", "size"], sort=False)["final_validation_nll"].rank(method="first")
    table["chosen"] = (best == 1).map({True: "x", False: ""})
    table = table.drop(columns="entry")
    print(table.to_string(index=False, float_format="%.4f"))
    if asked.table:
        asked.table.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(asked.table, index=False, float_format="%.5f")


def echo(event: object) -> None:
    """Print what is done; events that are no text are of the progress bar."""
    if isinstance(event, str):
        print(event, flush=True)


def means(rows: pd.DataFrame, varied: list[str]) -> pd.DataFrame:
    """Mean validation NLL of each variant over its repetitions."""
    keys = ["entry", "label", "size", *(name for name in varied if name in rows)]
    table = rows.groupby(keys, sort=False, dropna=False).validation_nll.agg(["mean", "count"]).reset_index()
    return table.rename(columns={"mean": "validation_nll", "count": "repetitions"})


def variants(entry: MethodEntry, label: str, grid: dict[str, list[str]]) -> list[Variant]:
    """The entry with each combination of values of the varied options that its method has; none where it has none.

    Without a varied option it is the entry itself.
    """
    if not grid:
        return [Variant(label, {}, entry.model_copy(update={"label": label}))]
    fields = type(parse_method(entry.use).config).model_fields
    names = [name for name in grid if name in fields]
    found = []
    for values in product(*(grid[name] for name in names)) if names else ():
        given = dict(zip(names, values, strict=True))
        text = ", ".join(f"{name}={value}" for name, value in given.items())
        changed = {"options": entry.options | given, "label": f"{label}: {text}"}
        found.append(Variant(label, given, entry.model_copy(update=changed)))
    return found


def validation_rows(suite: Suite, tried: list[Variant], options: Options) -> list[dict[str, Any]]:
    """Make the predictions of all variants; one row for each, and each repetition."""
    trial = Suite.model_validate({**suite.model_dump(), "methods": tuple(variant.entry for variant in tried)})
    store = options.open_store()
    plan = plan_suite(trial, store)
    outcome = make_artefacts(plan, store, {cell.predictions for cell in plan.cells}, options, echo)
    for key, reason in outcome.failures.items():
        print(f"failed: {plan.nodes[key].title}: {reason}")
    by_label = {variant.entry.label: variant for variant in tried}
    rows = []
    for cell in plan.cells:
        if cell.predictions in outcome.failures:
            continue
        arrays, variant = store.arrays("predictions", cell.predictions), by_label[cell.label]
        terms = arrays["validation"][: cell.terms]  # those of a larger size are stored, too
        nll = negative_log_likelihood(mixture_log_probs(terms), arrays["validation_labels"]).mean()
        row = {"entry": cell.label, "label": variant.label, "size": cell.size, **variant.given}
        rows.append(row | {"validation_nll": nll})
    return rows


if __name__ == "__main__":  # workers are started by spawning
    main()
