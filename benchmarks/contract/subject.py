"""A method under test on tiny data with nine small members.  It is called as the workers of a run call it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.contract.promises import NotCheckedError
from benchmarks.work.calling import build_predictor, fit_part, make_views, member_logits, train_member
from dbn_core.data.batch import Batch
from dbn_core.data.dataset import Dataset
from dbn_core.methods.context import FitContext, PredictContext, freeze
from dbn_core.methods.method import Method, Part
from dbn_core.rng import seeded
from dbn_core.tasks.base import Task, task_named
from dbn_core.tensors import pack, unpack
from dbn_core.train.loop import TrainLog
from dbn_core.train.recipe import Recipe

State = dict[str, torch.Tensor]
# With an average, since suites may ask for one: it copies what is trained.
RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05, crop_pad=1, ema_decay=0.5)
LARGEST_SIZE = 9
_CPU = torch.device("cpu")
# Global settings of torch, how they are read, and how they are restored (the seed: by whoever seeds next).
_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the global seed": (torch.initial_seed, lambda seed: None),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "whether gradients are recorded": (torch.is_grad_enabled, torch.set_grad_enabled),
    "whether algorithms are deterministic": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
}


class Interrupted(Exception):
    """Simulates that a run is killed during a training."""


@dataclass
class WatchedContext(FitContext):
    """A context that counts its trainings and can interrupt one of them.

    Attributes:
        purposes: the purpose of each training so far.
        steps: how many steps each training took in this context, without those before it was resumed.
        kill_at: (training, step), both from 0, at which fitting is interrupted; None: never.
    """

    purposes: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    kill_at: tuple[int, int] | None = None

    def train(self, module: nn.Module, step: Any, recipe: Recipe | None = None, **options: Any) -> TrainLog:
        """As :meth:`FitContext.train`, interrupted at ``kill_at``."""
        self.purposes.append(options.get("purpose", "train"))
        self.steps.append(0)
        training = len(self.steps) - 1

        def counted(batch: Batch) -> torch.Tensor:
            if (training, self.steps[training]) == self.kill_at:
                raise Interrupted
            self.steps[training] += 1
            return step(batch)

        return super().train(module, counted, recipe, **options)


@dataclass(eq=False)
class Fitted:
    """A fitted part: its state as read from the store, its context, and the attributes it left on the method."""

    state: State
    context: WatchedContext
    left: tuple[str, ...]


@dataclass
class Subject:
    """A method under test at the two smallest sizes that it accepts."""

    method: Method
    sizes: Sequence[int]
    task: Task
    spec: Any
    data: Dataset
    members: list[nn.Module]
    disturbed: set[str] = field(default_factory=set)  # global settings of torch that a call left changed
    _fitted: dict[int, dict[str, Fitted]] = field(default_factory=dict)
    _made: list[tuple[Part, list[Fitted], Fitted]] = field(default_factory=list)  # a part, what it needs, its fit

    @property
    def first(self) -> int:
        """The smallest size; raises NotCheckedError when there is none."""
        if not self.sizes:
            raise NotCheckedError("there is no size to try it with")
        return self.sizes[0]

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note in ``disturbed`` which global settings of torch change, and restore them."""
        before = {name: read() for name, (read, _) in _SETTINGS.items()}
        try:
            yield
        finally:
            for name, (read, restore) in _SETTINGS.items():
                if read() != before[name]:
                    self.disturbed.add(name)
                    restore(before[name])

    def again(self) -> Method:
        """Another instance, as another process would make it."""
        return type(self.method)(self.method.config)

    def _shared(self, *axes: str) -> dict[str, Any]:
        axes_ = {"check": list(axes)}
        return {"data": self.data, "spec": self.spec, "device": _CPU, "axes": axes_, "task": self.task}

    def fit(
        self,
        part: Part,
        parts: Mapping[str, State],
        recipe: Recipe = RECIPE,
        method: Method | None = None,
        **options: Any,
    ) -> Fitted:
        """Fit one part, then store and load its state.

        Args:
            parts: states of the parts that are fitted already.
            method: the instance that fits; None: a new one.
            options: further fields of the context.
        """
        context = WatchedContext(
            **self._shared("fit", part.name),
            recipe=recipe,
            student_epochs=recipe.epochs,
            members=copy.deepcopy([self.members[position] for position in part.members]),
            parts={name: dict(parts[name]) for name in part.needs},
            run_name=part.name,
            **options,
        )
        method = method or self.again()
        with seeded(_CPU, check="fit", part=part.name), self.watch():
            state = fit_part(method, part, context)
        caches = {name for name, value in vars(type(method)).items() if isinstance(value, cached_property)}
        left = set(vars(method)) - set(vars(self.again())) - caches
        return Fitted(unpack(pack(state))[0], context, tuple(sorted(left)))

    def fitted(self, size: int) -> dict[str, Fitted]:
        """All parts of one size, fitted once; those that sizes share once for all, as in a suite."""
        if size not in self._fitted:
            made: dict[str, Fitted] = {}
            for part in self.again().parts(size):
                needs = [made[name] for name in part.needs]
                known = [fitted for other, used, fitted in self._made if other == part and used == needs]
                states = {name: other.state for name, other in made.items()}
                made[part.name] = known[0] if known else self.fit(part, states)
                self._made.append((part, needs, made[part.name]))
            self._fitted[size] = made
        return self._fitted[size]

    @cached_property
    def refitted(self) -> dict[str, Fitted]:
        """All parts of the smallest size once more, by one instance."""
        method, states = self.again(), self.states(self.first)
        return {part.name: self.fit(part, states, method=method) for part in method.parts(self.first)}

    def states(self, size: int) -> dict[str, State]:
        """States of all parts of one size."""
        return {name: made.state for name, made in self.fitted(size).items()}

    def predict_context(self, size: int) -> PredictContext:
        """What the harness hands to predictor() and cost()."""
        return PredictContext(
            **self._shared("predict"),
            members={position: copy.deepcopy(self.members[position]) for position in self.method.members(size)},
            parts={name: dict(state) for name, state in self.states(size).items()},
        )

    def predictor(self, size: int) -> nn.Module:
        """The predictor of one size, built by an instance of its own."""
        context = self.predict_context(size)
        with seeded(_CPU, check="predictor"), self.watch():
            return build_predictor(self.again(), size, context)

    def views(self, part: Part, unseen: bool, count: int = 2) -> dict[str, Any]:
        """Options of :meth:`fit` with which a part's teachers are stored logits, also on unseen images."""
        split, recipe = self.data.validation if unseen else self.data.train, part.teacher_recipe(RECIPE)
        views = make_views(split, recipe, bool(recipe.flip), count, {"check": "views"})
        return {
            "stored_views": views,
            "stored_logits": [member_logits(self.members[m], views, _CPU) for m in part.members],
        }

    def interrupted(self, part: Part, size: int, folder: Path) -> Fitted:
        """A part whose last training was killed two steps before its end, during an epoch, and resumed."""
        logs, states = self.fitted(size)[part.name].context.logs, self.states(size)
        options: dict[str, Any] = {"checkpoint": folder / part.name}
        with suppress(Interrupted):
            self.fit(part, states, kill_at=(len(logs) - 1, max(0, logs[-1].steps - 2)), **options)
        return self.fit(part, states, **options)


def make_subject(method: Method, spec: Any = None) -> Subject:
    """A method with the two smallest sizes that it accepts, and members of its own.

    Args:
        spec: of the networks; None: the small one of the method's task.
    """
    sizes = []
    for size in range(1, LARGEST_SIZE + 1):
        try:
            method.check_size(size)
        except Exception:  # a check of its own reports what is no SpecError
            continue
        sizes.append(size)
    task, spec, data, members = _world(method.task, method.needs_batchnorm, None if spec is None else _Given(spec))
    return Subject(method, sizes[:2], task, spec, data, copy.deepcopy(members))


@dataclass(frozen=True)
class _Given:
    """A spec as an argument that can be hashed."""

    spec: Any

    def __hash__(self) -> int:
        return hash(self.spec.model_dump_json())


@lru_cache
def _world(name: str, needs_batchnorm: bool, given: _Given | None = None) -> tuple[Task, Any, Dataset, list[nn.Module]]:
    task = task_named(name)()
    spec, data = task.trial()
    if given is not None:
        spec = given.spec
    elif needs_batchnorm:
        spec = spec.model_copy(update={"norm": "batchnorm"})
    members = []
    for index in range(LARGEST_SIZE):
        context = FitContext(data=data, spec=spec, device=_CPU, axes={"check": index}, recipe=RECIPE, task=task)
        trained = index < 3 and task.trains_members  # enough for what methods learn; the rest fills the pool
        network = train_member(context) if trained else context.new_network()
        members.append(freeze(network))
    return task, spec, data, members
