"""The command line in the process of a test; ``tests/conftest.py`` makes the fixture ``dbn_bench`` of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from benchmarks.cli import main


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


DbnBench = Callable[..., Said]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> DbnBench:
    """A function that runs ``dbn-bench WORDS``; no command may print a traceback."""

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["dbn-bench", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = Said(code, *capsys.readouterr())
        assert "Traceback" not in said.err + said.out
        return said

    return run
