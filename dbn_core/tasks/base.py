"""Base class of tasks: what methods predict, how predictions are scored, and the reference method.

A task is one class, decorated with ``@register_task("name")``; a suite names it in ``task``.  The harness plans,
trains, stores, compares and reports in the same way for all tasks, and asks the task for the rest.  Data are examples
[N, C, H, W] with a class number each; a table's rows are [N, D, 1, 1].

Imports no torch, so that suites can be checked without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from dbn_core.errors import DataError, SpecError, did_you_mean
from dbn_core.nets.spec import NetworkOptions
from dbn_core.options import KeyedOptions
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
    """One score: how tables, figures and sentences present it.

    Attributes:
        title: its name in tables.
        better: the direction; None for a number that describes and does not rank.
        percent: whether it is a fraction that is printed in %.
        meaning: a sentence for the report.
        words: its name in sentences; the title by default.
        table: the table of the report that shows it.
    """

    title: str
    better: Literal["lower", "higher"] | None = "lower"
    percent: bool = False
    meaning: str = ""
    words: str = ""
    table: Literal["main", "uncertainty"] = "main"

    @property
    def name(self) -> str:
        """Its name in sentences."""
        return self.words or self.title

    @property
    def heading(self) -> str:
        """Title of a column, with unit and direction: ``ECE % debiased ↓``."""
        first, _, rest = self.title.partition(" ")
        title = " ".join(filter(None, (first, "%" * self.percent, rest)))
        return title + {"lower": " ↓", "higher": " ↑", None: ""}[self.better]


@dataclass(frozen=True)
class SampleFigure:
    """A figure of the report with one panel a method, of an array in :attr:`Scores.samples`.

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
        samples: small arrays that the report draws, for example some of the samples.
    """

    examples: dict[str, Array] = field(default_factory=dict)
    split: dict[str, float] = field(default_factory=dict)
    ids: Array | None = None
    samples: dict[str, Array] = field(default_factory=dict)

    def __contains__(self, score: str) -> bool:
        """Whether the predictions have the score."""
        return score in self.examples or score in self.split

    def values(self, score: str) -> Array:
        """Its value for each example, [N], or for the whole split, [1]."""
        import numpy as np  # here, since planning needs no NumPy

        return self.examples[score] if score in self.examples else np.array([self.split[score]])


class Task(KeyedOptions, ABC):
    """Base class of every task.  Its fields are the options of ``[task]``, and part of every key.

    The problem is defined by ``networks``, :meth:`new_network`, :meth:`member_step` and :meth:`predict`; the scoring by
    ``scores``, the lists of their names, and :meth:`score`.

    Attributes:
        name: set by the decorator.
        version: raise it when what :meth:`predict` stores changes, so that keys change.
        scores: the table of all scores, in the order of columns; the lists below name some of them.
        headline: the score that ranks methods.
        tested_scores: those whose paired differences are tested and listed, in that order.
        plotted_scores: those that the report draws.
        axis: the column against which it draws them, and its title.
        curves: scores with a curve over the sizes of the reference, by the column of the equivalent; lower is better.
        sample_figures: figures of :attr:`Scores.samples`, by name.
        reference: name of the reference method: methods are compared with it at size 1 and at their own size, and its
            curve gives equivalents.
        reference_label: label of that method in comparisons.
        networks: the model of ``[network]``.
        optional: tables that a suite of this task may omit, since nothing is trained from them.
        draws_predictions: whether predicting is random, so that each repetition predicts anew.
        stored_views: whether teachers may answer from stored logits.
        validates: whether :meth:`evaluate` exists, so that trainings may keep their best epoch.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    scores: ClassVar[Mapping[str, Score]] = {}
    headline: ClassVar[str] = ""
    tested_scores: ClassVar[tuple[str, ...]] = ()
    plotted_scores: ClassVar[tuple[str, ...]] = ()
    axis: ClassVar[tuple[str, str]] = ("macs_rel", "FLOPs (one network = 1)")
    curves: ClassVar[Mapping[str, str]] = {}
    sample_figures: ClassVar[Mapping[str, SampleFigure]] = {}
    reference: ClassVar[str] = ""
    reference_label: ClassVar[str] = ""
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

    def key(self, include: Collection[str] | None = None, exclude: Collection[str] = ()) -> dict[str, Any]:
        """The name, and the version and options that differ from their defaults."""
        version = {"version": self.version} if self.version > 1 else {}
        return {"name": self.name, **version, **super().key(include, exclude)}

    def definition(self) -> dict[str, Any]:
        """The name and all options, as a suite file may write them."""
        return {"name": self.name, **self.model_dump(mode="json")}

    def describe(self) -> dict[str, Any]:
        """The task as reports read it, as JSON."""
        words = ("name", "headline", "reference", "reference_label", "plotted_scores", "axis")
        return {
            **{word: getattr(self, word) for word in words},
            "summary": self.summary(),
            "curves": dict(self.curves),
            "scores": {name: asdict(score) for name, score in self.scores.items()},
            "sample_figures": {name: asdict(figure) for name, figure in self.sample_figures.items()},
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
        """The loss of a member: maps a batch to a scalar, drawing from ``generator`` alone."""

    @abstractmethod
    def predict(
        self, predictor: nn.Module, data: Dataset, device: torch.device, generator: torch.Generator, name: str
    ) -> dict[str, torch.Tensor]:
        """Stored predictions: tensors from which :meth:`score` computes all scores.

        Raises:
            PluginError: the predictor of the method ``name`` returns something else than the task needs.
        """

    def accept(self, arrays: Mapping[str, Array], data: Dataset) -> dict[str, torch.Tensor]:
        """Convert predictions made outside this package to what :meth:`predict` stores.

        Args:
            arrays: the arrays of their file, by name; :func:`checked_arrays` checks them.
            data: those of the predicted repetition.

        Raises:
            DataError: an array is missing or wrong; the message does not name the file.
            SpecError: the task accepts no such predictions.
        """
        raise SpecError(f"The task '{self.name}' accepts no predictions from a file: write a method of it instead.")

    @abstractmethod
    def score(self, arrays: Mapping[str, Array], terms: int | None = None) -> Scores:
        """Scores of stored predictions, from the first ``terms`` terms where a method is nested.  Uses no torch."""

    def numbers(self, output: torch.Tensor) -> torch.Tensor:
        """Output of a predictor as comparable numbers, examples first: [B, ...]."""
        return output

    def against(self, scores: Scores, reference: Scores) -> dict[str, Array]:
        """Example scores that need the predictions of the largest reference of the same repetition as well."""
        return {}

    def is_predictor(self, module: nn.Module) -> bool:
        """Whether :meth:`evaluate` can evaluate a module as it is."""
        return False

    def evaluate(self, predictor: Any, data: Dataset, device: torch.device) -> tuple[float, float]:
        """Accuracy and NLL on validation, between epochs; only if the task ``validates``."""
        raise NotImplementedError

    @abstractmethod
    def trial(self) -> tuple[Any, Dataset]:
        """A tiny network and tiny data for ``dbn-bench check``."""


class NoNetwork(NetworkOptions):
    """Empty ``[network]`` of tasks whose methods bring their own models."""

    @property
    def label(self) -> str:
        """For tables."""
        return "none: methods bring their own models"


def checked_arrays(
    arrays: Mapping[str, Array], shapes: Mapping[str, Sequence[int | None]], optional: Container[str] = ()
) -> dict[str, Array]:
    """Check the arrays of a file, for :meth:`Task.accept`.

    Args:
        shapes: of the expected arrays, by name; None for an axis of any length but zero, () for a number.
        optional: names that may be missing.

    Raises:
        DataError: an array is missing, unexpected, of another shape, or not of finite numbers.
    """
    import numpy as np  # here, since planning needs no NumPy

    for name in shapes:
        if name not in arrays and name not in optional:
            raise DataError(
                f"There is no array '{name}'{did_you_mean(name, arrays)}: save one of shape {_text(shapes[name])}."
            )
    for name, array in arrays.items():
        if name not in shapes:
            raise DataError(f"Unexpected array '{name}'{did_you_mean(name, shapes)}: leave it out.")
        if array.dtype.kind not in "fiu":
            raise DataError(f"The array '{name}' is of type {array.dtype}: save it as numbers.")
        shape = shapes[name]
        if array.ndim != len(shape) or not all(
            length if size is None else length == size for size, length in zip(shape, array.shape, strict=True)
        ):
            raise DataError(f"The array '{name}' has the shape {list(array.shape)}: save one of shape {_text(shape)}.")
        with np.errstate(over="ignore"):
            bad = int(np.sum(~np.isfinite(array.astype(np.float32))))  # as numbers are stored
        if bad:
            raise DataError(f"The array '{name}' has {bad} values that are NaN or infinite: save finite numbers.")
    return dict(arrays)


def _text(shape: Sequence[int | None]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


TASKS: LazyTable[Task] = LazyTable("Task")
T = TypeVar("T", bound=type[Task])


def register_task(name: str) -> Callable[[T], T]:
    """Class decorator that registers a task as ``name``; raises PluginError if another class has the name."""

    def decorate(cls: T) -> T:
        TASKS.put(name, cls)
        cls.name = name
        return cls

    return decorate


def task_named(name: str) -> type[Task]:
    """The class of a task; raises SpecError for an unknown name."""
    if name not in TASKS:
        raise SpecError(f"Unknown task '{name}'{did_you_mean(name, TASKS)}.")
    return TASKS[name]
