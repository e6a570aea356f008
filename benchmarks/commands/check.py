"""``check``: the contract tests over a method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from benchmarks.commands.common import MethodSpec, Plugins, console, echo, load_plugins
from dbn_core.errors import SpecError

if TYPE_CHECKING:
    from benchmarks.contract.promises import CheckResult


def check(name: MethodSpec, plugin: Plugins = None) -> None:
    """Run the contract tests over a method, on tiny data."""
    from dbn_core.methods.registry import canonical, parse_method

    load_plugins(plugin)
    method = parse_method(name)
    from benchmarks.contract.check import check_method

    show_outcomes(check_method(method), canonical(method))


def show_outcomes(results: Iterable[CheckResult], what: str) -> None:
    """Print every check as it is done, and the skipped ones by reason; raises :class:`SpecError` when one failed."""
    outcomes, skipped = Counter[str](), Counter[str]()
    for result in results:
        outcomes[result.outcome] += 1
        if result.outcome == "skip":
            skipped[result.sentence] += 1
            continue
        style = "red" if result.outcome == "FAIL" else None
        console.print(f"{result.outcome:<4}  {result.name}", style=style, markup=False, highlight=False, soft_wrap=True)
        if result.sentence:
            echo(f"      {result.sentence}")
    for reason, count in skipped.items():
        echo(f"skip  {count} {'check' if count == 1 else 'checks'}: {reason}")
    if broken := outcomes["FAIL"]:
        more = f", and {outcomes['skip']} were not checked" if outcomes["skip"] else ""
        raise SpecError(f"'{what}' breaks {broken} of {outcomes.total()} promises{more}: correct them.")
    echo(f"'{what}' keeps the contract.")
