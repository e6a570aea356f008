"""``list``, ``show`` and ``check``: what there is to compare, and whether a method keeps the contract."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.common import Plugins, complete_method, console, load_plugins, table
from dbn_core.errors import SpecError


def list_(plugin: Plugins = None) -> None:
    """Show methods, suites and data sources."""
    from benchmarks.suite.builtin import available
    from dbn_core.data.sources import SOURCES
    from dbn_core.methods.registry import methods

    load_plugins(plugin)
    for task in dict.fromkeys(["classification", *(method.task for method in methods().values())]):
        found: list[tuple[str, ...]] = [
            (name, m.summary(), m.reference) for name, m in methods().items() if m.task == task
        ]
        table(f"Methods of {task}", ["name", "what it is", "reference"], found)
    table("Suites", ["name", "title"], [(name, _title(path)) for name, path in available().items()])
    table("Data sources", ["source", "what it reads"], [(name, source.summary) for name, source in SOURCES.items()])
    console.print("Options of a method: dbn-bench show NAME", highlight=False)


def show(
    name: Annotated[str, typer.Argument(help="A method.", autocompletion=complete_method)], plugin: Plugins = None
) -> None:
    """Show the options of a method, with their defaults."""
    from dbn_core.methods.registry import parse_method

    load_plugins(plugin)
    method = parse_method(name)
    console.print(
        f"{method.name}: {method.summary()}  {method.reference}", markup=False, highlight=False, soft_wrap=True
    )
    fields = type(method).Config.model_fields
    if fields:
        values = method.config.model_dump()
        table(
            "Options",
            ["option", "value", "meaning"],
            [(k, str(values[k]), f.description or "") for k, f in fields.items()],
        )


def check(
    name: Annotated[
        str, typer.Argument(help="A method or spec, for example dbn or 'dbn[steps=1]'.", autocompletion=complete_method)
    ],
    plugin: Plugins = None,
) -> None:
    """Run the contract tests over a method, a plugin's too."""
    from dbn_core.methods.registry import canonical, parse_method

    load_plugins(plugin)
    method = parse_method(name)
    from benchmarks.contract.check import check_method

    outcomes: Counter[str] = Counter()
    for result in check_method(method):
        outcomes[result.outcome] += 1
        style = "red" if result.outcome == "FAIL" else None
        console.print(f"{result.outcome:<4}  {result.name}", style=style, markup=False, highlight=False, soft_wrap=True)
        if result.sentence:
            console.print(f"      {result.sentence}", markup=False, highlight=False, soft_wrap=True)
    if broken := outcomes["FAIL"]:
        skipped = f", and {outcomes['skip']} were not checked" if outcomes["skip"] else ""
        raise SpecError(f"'{canonical(method)}' breaks {broken} of {outcomes.total()} promises{skipped}: correct them.")
    console.print(f"'{canonical(method)}' keeps the contract.", markup=False, highlight=False, soft_wrap=True)


def _title(path: Path) -> str:
    import tomllib

    return str(tomllib.loads(path.read_text(encoding="utf-8")).get("title", ""))
