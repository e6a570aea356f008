"""The science of fast ensembling: networks, bridges, distillation, data, training and metrics.

The names below are the public interface for plugins.  They are resolved on first use, because importing torch takes
seconds and the registry must answer at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Config": "dbn_core.method",
    "Method": "dbn_core.method",
    "Part": "dbn_core.method",
    "register": "dbn_core.registry",
    "parse_method": "dbn_core.registry",
    "FitContext": "dbn_core.context",
    "PredictContext": "dbn_core.context",
    "Mixture": "dbn_core.predictors",
    "NetworkSpec": "dbn_core.nets",
    "Recipe": "dbn_core.train.recipe",
    "BenchError": "dbn_core.errors",
}
__all__ = [*_PUBLIC, "__version__"]

if TYPE_CHECKING:
    from dbn_core.context import FitContext as FitContext
    from dbn_core.context import PredictContext as PredictContext
    from dbn_core.errors import BenchError as BenchError
    from dbn_core.method import Config as Config
    from dbn_core.method import Method as Method
    from dbn_core.method import Part as Part
    from dbn_core.nets import NetworkSpec as NetworkSpec
    from dbn_core.predictors import Mixture as Mixture
    from dbn_core.registry import parse_method as parse_method
    from dbn_core.registry import register as register
    from dbn_core.train.recipe import Recipe as Recipe


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'dbn_core' has no attribute '{name}'")
