"""What a suite is about: what its methods predict, which scores that has, and its reference method.

A task is one class, decorated with ``@register_task("name")``; a suite names it in ``task``.  The harness plans,
trains, stores, compares and reports alike for all of them; whatever differs between classifying images and drawing
samples is asked of the task.  Data always come as examples [N, C, H, W] with a class number each: a table's rows are
[N, D, 1, 1].

Imports no torch, so that suites can be checked without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from dbn_core.errors import DataError, SpecError, did_you_mean
from dbn_core.nets.spec import NetworkOptions
from dbn_core.tables import LazyTable

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.data.dataset import Dataset
    from dbn_core.train.recipe import Recipe

    Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Score:
    """One score, as tables and figures need to know it.

    Attributes:
        title: its name in tables.
        better: the direction; None for a number that describes and does not rank.
        percent: whether it is a fraction that is shown in %.
        meaning: a sentence for the report.
    """

    title: str
    better: Literal["lower", "higher"] | None = "lower"
    percent: bool = False
    meaning: str = ""


@dataclass(frozen=True)
class Exhibit:
    """What the report draws of an array that :meth:`Task.score` exhibits, a panel for each method.

    ``points``: [n, 2], a scatter plot; ``images``: [n, H, W], a grid; ``paths``: [n, T, 2], lines from first to last.
    """

    kind: Literal["points", "images", "paths"]
    title: str
    text: str


@dataclass(kw_only=True)
class Scores:
    """Scores of one set of predictions.

    Attributes:
        examples: scores that are means over test examples, as their values [N].
        split: scores of the whole test split, a number each.
        ids: int [N], numbers of the test examples in the whole source, where each repetition splits it anew.
        exhibits: small arrays that the report shows, for example some of the samples.
    """

    examples: dict[str, Array] = field(default_factory=dict)
    split: dict[str, float] = field(default_factory=dict)
    ids: Array | None = None
    exhibits: dict[str, Array] = field(default_factory=dict)

    def __contains__(self, score: str) -> bool:
        """Whether the predictions have the score."""
        return score in self.examples or score in self.split

    def values(self, score: str) -> Array:
        """Its value for each example, [N], or for the whole split, [1]."""
        import numpy as np  # here, since to plan needs no NumPy

        return self.examples[score] if score in self.examples else np.array([self.split[score]])


class Task(BaseModel, ABC):
    """Base class of every task.  Its fields are what a suite may set in ``[task]``, and part of every key.

    Attributes:
        name: set by the decorator.
        scores: what can be measured, in the order of tables.
        headline: the score by which methods are ranked.
        compared: the scores of which paired differences are tested and listed, in that order.
        reference: the method whose sizes are the reference: methods are compared with it at size 1 and at their own
            size, and its curve gives equivalents.
        reference_label: what comparisons call that method.
        figured: the scores that the report draws.
        axis: the column against which it draws them, and its title.
        exhibits: how the report draws what :meth:`score` exhibits.
        curves: which scores have a curve over the reference's sizes, by the column that an equivalent gets.
        networks: the model of ``[network]``.
        optional: tables that a suite of this task may leave out, since nothing is trained from them.
        draws_predictions: whether predicting is random, so that repetitions predict anew whatever they share.
        stored_views: whether teachers can speak from stored logits.
        validates: whether :meth:`evaluate` exists, so that trainings may keep their best epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = ""
    scores: ClassVar[Mapping[str, Score]] = {}
    headline: ClassVar[str] = ""
    compared: ClassVar[tuple[str, ...]] = ()
    reference: ClassVar[str] = ""
    reference_label: ClassVar[str] = ""
    figured: ClassVar[tuple[str, ...]] = ()
    axis: ClassVar[tuple[str, str]] = ("macs_rel", "FLOPs (one network = 1)")
    exhibits: ClassVar[Mapping[str, Exhibit]] = {}
    curves: ClassVar[Mapping[str, str]] = {}
    networks: ClassVar[type[NetworkOptions]]
    optional: ClassVar[tuple[str, ...]] = ()
    draws_predictions: ClassVar[bool] = False
    stored_views: ClassVar[bool] = False
    validates: ClassVar[bool] = False

    @property
    def trains_members(self) -> bool:
        """Whether there is a pool of networks."""
        return "recipe" not in self.optional

    def network_spec(self, given: Mapping[str, Any]) -> NetworkOptions:
        """The checked options of ``[network]``."""
        return self.networks.model_validate(given)

    @classmethod
    def summary(cls) -> str:
        """First line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]

    def key(self) -> dict[str, Any]:
        """JSON value that identifies the task and its options in keys."""
        return {"name": self.name, **self.model_dump()}

    def describe(self) -> dict[str, Any]:
        """What a report must know of the task, as JSON."""
        words = ("name", "headline", "reference", "reference_label", "figured", "axis")
        return {
            **{word: getattr(self, word) for word in words},
            "summary": self.summary(),
            "curves": list(self.curves),
            "scores": {name: asdict(score) for name, score in self.scores.items()},
            "exhibits": {name: asdict(exhibit) for name, exhibit in self.exhibits.items()},
        }

    @abstractmethod
    def new_network(
        self, spec: Any, channels: int, image_size: tuple[int, int], classes: int, mean: Sequence[float],
        std: Sequence[float],
    ) -> nn.Module:  # fmt: skip
        """A member of the pool, not yet initialised."""

    @abstractmethod
    def member_step(
        self, network: nn.Module, recipe: Recipe, generator: torch.Generator
    ) -> Callable[[Batch], torch.Tensor]:
        """What trains a member: maps a batch to a scalar loss, drawing from ``generator`` alone."""

    @abstractmethod
    def predict(
        self, predictor: nn.Module, data: Dataset, device: torch.device, generator: torch.Generator, name: str
    ) -> dict[str, torch.Tensor]:
        """What is stored of a predictor: tensors from which :meth:`score` makes all scores.

        Raises:
            PluginError: the predictor of the method ``name`` does not give what the task needs; one sentence says what.
        """

    def accept(self, arrays: Mapping[str, Array], data: Dataset) -> dict[str, torch.Tensor]:
        """What :meth:`predict` would have stored, of predictions that were made elsewhere.

        Args:
            arrays: what their file holds, by name; :func:`checked_arrays` checks them.
            data: those of the repetition that was predicted.

        Raises:
            DataError: an array is missing or wrong; a sentence without the name of the file.
            SpecError: the task takes none.
        """
        raise SpecError(
            f"The task '{self.name}' takes no predictions that were made elsewhere: write a method of it instead."
        )

    @abstractmethod
    def score(self, arrays: Mapping[str, Array], terms: int | None = None) -> Scores:
        """Scores of stored predictions; ``terms``: how many terms count where a method is nested.  No torch."""

    def numbers(self, output: torch.Tensor) -> torch.Tensor:
        """A predictor's output as numbers that can be compared, examples first: [B, ...]."""
        return output

    def against(self, scores: Scores, reference: Scores) -> dict[str, Array]:
        """Further example scores, of predictions beside those of the largest reference of the same repetition."""
        return {}

    def is_predictor(self, module: nn.Module) -> bool:
        """Whether a module that is trained can be evaluated as it is."""
        return False

    def evaluate(self, predictor: Any, data: Dataset, device: torch.device) -> tuple[float, float]:
        """Accuracy and NLL on validation, between epochs; only where the task ``validates``."""
        raise NotImplementedError

    @abstractmethod
    def trial(self) -> tuple[Any, Dataset]:
        """A tiny network and tiny data, on which ``dbn-bench check`` tries methods."""


class NoNetwork(NetworkOptions):
    """``[network]`` of tasks whose methods bring their own models: nothing can be said of it."""

    @property
    def label(self) -> str:
        """In words."""
        return "none: methods bring their own models"


def checked_arrays(
    arrays: Mapping[str, Array], shapes: Mapping[str, Sequence[int | None]], optional: Container[str] = ()
) -> dict[str, Array]:
    """Arrays that were made elsewhere, for :meth:`Task.accept`.

    Args:
        shapes: of the arrays that are asked for, by name; None for an axis of any length but zero, () for a number.
        optional: those that may be missing.

    Raises:
        DataError: an array is missing, not asked for, of another shape, or no finite numbers.
    """
    import numpy as np  # here, since to plan needs no NumPy

    for name in shapes:
        if name not in arrays and name not in optional:
            raise DataError(
                f"There is no array '{name}'{did_you_mean(name, arrays)}: save one of shape {_shown(shapes[name])}."
            )
    for name, array in arrays.items():
        if name not in shapes:
            raise DataError(f"Nothing asks for the array '{name}'{did_you_mean(name, shapes)}: leave it out.")
        if array.dtype.kind not in "fiu":
            raise DataError(f"The array '{name}' is of type {array.dtype}: save it as numbers.")
        shape = shapes[name]
        if array.ndim != len(shape) or not all(
            length if size is None else length == size for size, length in zip(shape, array.shape, strict=True)
        ):
            raise DataError(f"The array '{name}' has the shape {list(array.shape)}: save one of shape {_shown(shape)}.")
        with np.errstate(over="ignore"):
            bad = int(np.sum(~np.isfinite(array.astype(np.float32))))  # as numbers are stored
        if bad:
            raise DataError(f"The array '{name}' has {bad} values that are NaN or infinite: make them anew.")
    return dict(arrays)


def _shown(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


TASKS: LazyTable[Task] = LazyTable("Task")
T = TypeVar("T", bound=type[Task])


def register_task(name: str) -> Callable[[T], T]:
    """Class decorator that makes a task known as ``name``; raises PluginError when another class has the name."""

    def decorate(cls: T) -> T:
        TASKS.put(name, cls)
        cls.name = name
        return cls

    return decorate


def task_named(name: str) -> type[Task]:
    """The class of a task; raises SpecError when there is none of that name."""
    if name not in TASKS:
        raise SpecError(f"Unknown task '{name}'{did_you_mean(name, TASKS)}.")
    return TASKS[name]
