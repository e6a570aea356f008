"""The harness: suites, plan, store, execution, statistics and report; and its use from Python.

The names below are resolved on first use, because they import pandas and torch; see :mod:`benchmarks.python`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import baselines as baselines  # adds the methods, tasks and data sources that come with the package

if TYPE_CHECKING:
    from benchmarks.python import evaluate as evaluate
    from benchmarks.python import load_member as load_member
    from benchmarks.python import load_method as load_method
    from benchmarks.python import load_predictions as load_predictions
    from benchmarks.python import load_results as load_results
    from benchmarks.python import mix as mix

_PUBLIC = ("evaluate", "load_member", "load_method", "load_predictions", "load_results", "mix")
__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module("benchmarks.python"), name)
    raise AttributeError(f"module 'benchmarks' has no attribute '{name}'")
