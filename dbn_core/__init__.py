"""The science of fast ensembling: networks, bridges, distillation, data, training and metrics.

The names below are the public contract for methods of other people; docs/plugins.md describes it and says what may
change.  They are resolved on first use, because importing torch takes seconds and the registry must answer at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# Version of the contract.  It rises when a name below goes, or stops meaning what it meant; additions do not raise it.
CONTRACT = 1

_PUBLIC = {
    # A method and its address.
    "Config": "dbn_core.methods.method",
    "Method": "dbn_core.methods.method",
    "Part": "dbn_core.methods.method",
    "TrainingCost": "dbn_core.methods.method",
    "register": "dbn_core.methods.registry",
    "parse_method": "dbn_core.methods.registry",
    "register_network": "dbn_core.nets.plugins",
    # What a new kind of suite is.
    "Task": "dbn_core.tasks.base",
    "Score": "dbn_core.tasks.base",
    "Scores": "dbn_core.tasks.base",
    "register_task": "dbn_core.tasks.base",
    "checked_arrays": "dbn_core.tasks.base",
    # What it is handed.
    "FitContext": "dbn_core.methods.context",
    "PredictContext": "dbn_core.methods.context",
    "Batch": "dbn_core.data.batch",
    "Dataset": "dbn_core.data.dataset",
    "Split": "dbn_core.data.dataset",
    "Classifier": "dbn_core.nets.resnet",
    "NetworkSpec": "dbn_core.nets",
    "Recipe": "dbn_core.train.recipe",
    # What it builds its predictor from.
    "Mixture": "dbn_core.methods.predictors",
    "Tempered": "dbn_core.methods.predictors",
    "FeatureMixture": "dbn_core.methods.predictors",
    "Cost": "dbn_core.measure.cost",
    "predict_split": "dbn_core.methods.evaluation",
    # What it may raise.
    "BenchError": "dbn_core.errors",
    "SpecError": "dbn_core.errors",
}
__all__ = [*_PUBLIC, "CONTRACT", "__version__"]

if TYPE_CHECKING:
    from dbn_core.data.batch import Batch as Batch
    from dbn_core.data.dataset import Dataset as Dataset
    from dbn_core.data.dataset import Split as Split
    from dbn_core.errors import BenchError as BenchError
    from dbn_core.errors import SpecError as SpecError
    from dbn_core.measure.cost import Cost as Cost
    from dbn_core.methods.context import FitContext as FitContext
    from dbn_core.methods.context import PredictContext as PredictContext
    from dbn_core.methods.evaluation import predict_split as predict_split
    from dbn_core.methods.method import Config as Config
    from dbn_core.methods.method import Method as Method
    from dbn_core.methods.method import Part as Part
    from dbn_core.methods.method import TrainingCost as TrainingCost
    from dbn_core.methods.predictors import FeatureMixture as FeatureMixture
    from dbn_core.methods.predictors import Mixture as Mixture
    from dbn_core.methods.predictors import Tempered as Tempered
    from dbn_core.methods.registry import parse_method as parse_method
    from dbn_core.methods.registry import register as register
    from dbn_core.nets import NetworkSpec as NetworkSpec
    from dbn_core.nets.plugins import register_network as register_network
    from dbn_core.nets.resnet import Classifier as Classifier
    from dbn_core.tasks.base import Score as Score
    from dbn_core.tasks.base import Scores as Scores
    from dbn_core.tasks.base import Task as Task
    from dbn_core.tasks.base import checked_arrays as checked_arrays
    from dbn_core.tasks.base import register_task as register_task
    from dbn_core.train.recipe import Recipe as Recipe


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'dbn_core' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
