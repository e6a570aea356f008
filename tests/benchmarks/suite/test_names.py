"""Names of results on the command line: one way to resolve them for all commands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.suite.names import cells_of_method, cells_of_result
from benchmarks.suite.plan import Cell
from dbn_core.errors import SpecError
from dbn_core.methods.registry import canonical, parse_method

ENTRIES = [("DE", "de"), ("ED", "ed"), ("ED (long)", "ed[epochs=30,mixup=0.4]"), ("Direct (KL)", "direct[loss=kl]")]


def cell(label: str, spec: str, size: int, repetition: int) -> Cell:
    method = parse_method(spec)
    return Cell(method, canonical(method), label, size, repetition, "", None, "", (), (), ())


CELLS = [cell(label, spec, size, r) for label, spec in ENTRIES for size in (1, 3) for r in (0, 1)]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("ED@3", "ED"),
        ("ed (LONG)@3", "ED (long)"),
        ("ed[mixup=0.4, epochs=30]@3", "ED (long)"),
        ("direct@3", "Direct (KL)"),
        ("Direct[loss=kl]@3", "Direct (KL)"),
        ("de@1", "DE"),
    ],
)
def test_a_result_has_a_label_a_spec_and_perhaps_a_name_of_its_own(name: str, label: str) -> None:
    found = cells_of_result(CELLS, name, "s")
    assert {cell.label for cell in found} == {label}
    assert [(str(cell.size), cell.repetition) for cell in found] == [(name[-1], 0), (name[-1], 1)]


def test_an_exact_name_wins_and_an_ambiguous_one_is_refused() -> None:
    twins = [replace(cell, label=cell.label.upper(), spec=f"{cell.spec} | views(2)") for cell in CELLS]
    assert cells_of_result([*CELLS, *twins], "ED (long)@3", "s")[0].spec == "ed[epochs=30,mixup=0.4]"
    with pytest.raises(SpecError, match="write 'ED \\(long\\)@3' or 'ED \\(LONG\\)@3'"):
        cells_of_result([*CELLS, *twins], "ed (Long)@3", "s")


@pytest.mark.parametrize("name", ["ED", "ed@2"])
def test_a_result_without_its_size_is_told_the_sizes(name: str) -> None:
    with pytest.raises(SpecError, match=r"write METHOD@SIZE, here 'ED@1' or 'ED@3' or 'ED \(long\)@1'.*@3'\.$"):
        cells_of_result(CELLS, name, "s")


@pytest.mark.parametrize("name", ["ED@2", "ED", "nothing@3", "@", ""])
def test_an_unknown_result_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="The suite 's' has no result"):
        cells_of_result(CELLS, name, "s")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("ed", {"ED", "ED (long)"}),
        ("ED (L*", {"ED (long)"}),
        ("ed[mixup=0.4,epochs=30]", {"ED (long)"}),
        ("d?", {"DE"}),
        ("x", set()),
    ],
)
def test_a_method_may_be_named_by_a_pattern(name: str, labels: set[str]) -> None:
    assert {cell.label for cell in cells_of_method(CELLS, name)} == labels
