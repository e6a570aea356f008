"""`tox -e perf -- --table FILE`: the timings as Markdown, with ratios to the plain case and to a lower bound.

A case is a test with its parameters; the plain case of a test has the values of :data:`PLAIN`.  A case that states its
``macs`` takes at least their time at the rate of a matrix product in its precision; one that states its ``bytes``, at
least their time at the rate of a copy.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.environment import hardware
from benchmarks.perf.gpu import copy_rate, matrix_rate

PLAIN: Mapping[str, Any] = {
    "path": "plain",
    "precision": "fp32",
    "taught": "online",
    "before": "nothing",
    "method": "single",
    "members": 1,
    "classes": 10,
    "size": 32,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", metavar="FILE", help="write medians and ratios to FILE as Markdown")


def pytest_sessionfinish(session: pytest.Session) -> None:
    file, timed = session.config.getoption("--table"), getattr(session.config, "_benchmarksession", None)
    if file and timed and timed.benchmarks:
        words = session.config.invocation_params.args[2:]  # tox gives the folder and the columns
        command = shlex.join(["tox", "-e", "perf", "--", *words])
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(table(timed.benchmarks, command), encoding="utf-8")


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return (" " if isinstance(value[0], str) else " x ").join(map(str, value))
    return str(value)


def table(cases: list[Any], command: str) -> str:
    """Cases in the order in which they were timed, a block a test."""
    cpu, precisions = torch.device("cpu"), sorted({_precision(case) for case in cases} | {"fp32"})
    rates = {precision: matrix_rate(precision, cpu, 1024, 10) for precision in precisions}
    said = " and ".join(f"{rate / 1e9:,.0f} GFLOP/s in {precision}" for precision, rate in rates.items())
    copied = copy_rate(cpu, 1 << 26)
    lines = [
        f"# {hardware()['processor']}, torch {torch.__version__}, one thread",
        "",
        f"Made by `{command}`. Medians; a ratio is to the plain case, whose ratio is 1.00. The floor is the time of "
        f"all multiply-adds at the rate of a matrix product, {said}; of FRN, augmentation and the store that of the "
        f"bytes which must be read and written, at {copied / 1e9:,.0f} GB/s, the rate of a copy from memory to memory.",
    ]
    medians = {_where(case): case.stats.median for case in cases}
    for test in dict.fromkeys(_test(case) for case in cases):
        lines += ["", f"## {test}", "", "| case | ms | ratio | times the floor | further |", "|---|---|---|---|---|"]
        for case in (one for one in cases if _test(one) == test):
            seconds, plain = case.stats.median, medians.get(_where(case, plain=True))
            facts = dict(case.extra_info)
            # A case has one of the two.
            floor = 2 * facts.pop("macs", 0) / rates[_precision(case)] + facts.pop("bytes", 0) / copied
            times = f"{seconds / floor:.2f}" if floor else ""
            further = ", ".join(f"{name} {value}" for name, value in facts.items())
            name = ", ".join(_said(value) for value in (case.params or {}).values()) or "–"
            ratio = f"{seconds / plain:.2f}" if plain else ""
            lines.append(f"| {name} | {1000 * seconds:,.3f} | {ratio} | {times} | {further} |")
    return "\n".join(lines) + "\n"


def _precision(case: Any) -> str:
    return (case.params or {}).get("precision", "fp32")


def _test(case: Any) -> str:
    return case.name.partition("[")[0].removeprefix("test_").replace("_", " ")


def _where(case: Any, plain: bool = False) -> tuple[Any, ...]:
    """Test and parameters of a case; with ``plain``, of its plain case."""
    params = dict(case.params or {})
    varied = [name for name in params if name in PLAIN]
    if plain:
        params |= {name: PLAIN[name] for name in varied}
    return _test(case), *(f"{name}={value}" for name, value in params.items())
