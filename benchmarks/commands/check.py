"""``check``: the contract tests over a method."""

from __future__ import annotations

from collections import Counter

from benchmarks.commands.common import MethodSpec, Plugins, console, echo, load_plugins
from dbn_core.errors import SpecError


def check(name: MethodSpec, plugin: Plugins = None) -> None:
    """Run the contract tests over a method, on tiny data."""
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
            echo(f"      {result.sentence}")
    if broken := outcomes["FAIL"]:
        skipped = f", and {outcomes['skip']} were not checked" if outcomes["skip"] else ""
        raise SpecError(f"'{canonical(method)}' breaks {broken} of {outcomes.total()} promises{skipped}: correct them.")
    echo(f"'{canonical(method)}' keeps the contract.")
