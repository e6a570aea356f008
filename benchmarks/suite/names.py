"""Which results of a suite a name on the command line means; all commands resolve names here.  Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from benchmarks.suite.plan import Cell
from dbn_core.errors import BenchError, SpecError, did_you_mean
from dbn_core.methods.registry import canonical, parse_method


def cells_of_method(cells: Sequence[Cell], name: str) -> list[Cell]:
    """The cells whose label, spec or method has this name, in either case.

    Args:
        name: may hold the wildcards ``*`` and ``?``; options of a spec may be in any order.
    """
    wanted = {name.casefold(), _canonical(name).casefold()}

    def matches(known: str) -> bool:
        known = known.casefold()
        return known in wanted or fnmatchcase(known, name.casefold())

    return [cell for cell in cells if any(map(matches, _names(cell)))]


def cells_of_result(cells: Sequence[Cell], name: str, suite: str) -> list[Cell]:
    """The cells, one a repetition, of the result ``METHOD@SIZE``.

    Args:
        name: the method's label, its spec with options in any order, or its name where that is unique; in either case.
        suite: name of the suite, for errors.

    Raises:
        SpecError: there is no such result, or there are several.
    """
    method, _, size = name.rpartition("@")
    wanted = {method.casefold(), _canonical(method).casefold()}
    of_size = [cell for cell in cells if str(cell.size) == size]
    for kind in range(len(_names(cells[0])) if cells else 0):
        found = [cell for cell in of_size if _names(cell)[kind].casefold() in wanted]
        specs = dict.fromkeys(cell.spec for cell in found)
        exact = [cell.spec for cell in found if _names(cell)[kind] == method]
        if len(specs) > 1 and not exact:
            labels = " or ".join(dict.fromkeys(f"'{cell.label}@{cell.size}'" for cell in found))
            raise SpecError(f"Several methods are called '{name}': write {labels}.")
        if found:
            spec = next(iter(exact or specs))  # of equal labels the suite's own, which comes first
            return [cell for cell in found if cell.spec == spec]
    if having := cells_of_method(cells, method if size.isdecimal() else name):
        listed = " or ".join(f"'{result}'" for result in dict.fromkeys(f"{cell.label}@{cell.size}" for cell in having))
        raise SpecError(f"The suite '{suite}' has no result '{name}': write METHOD@SIZE, here {listed}.")
    results = dict.fromkeys(f"{cell.label}@{cell.size}" for cell in cells)
    raise SpecError(
        f"The suite '{suite}' has no result '{name}'{did_you_mean(name, results)}; a result that was added by --add or "
        "--plugin needs the same options here."
    )


def _names(cell: Cell) -> tuple[str, ...]:
    """What a cell's method is called, the most particular name first."""
    return cell.label, cell.spec, canonical(cell.method), cell.method.name


def _canonical(name: str) -> str:
    """The canonical spec of a method; the name itself where it is no spec."""
    try:
        return canonical(parse_method(name))
    except BenchError:
        return name
