"""What the harness hands to a method: data, members, trained parts, seeds, and the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from dbn_core.data.batch import Batch
from dbn_core.data.dataset import Dataset, Split
from dbn_core.data.views import Views
from dbn_core.errors import SpecError, shown
from dbn_core.nets.init import initialise_
from dbn_core.nets.network import Tap
from dbn_core.nets.precision import full_precision
from dbn_core.rng import generator, seeded
from dbn_core.tasks.base import Task
from dbn_core.tasks.classification import Classification
from dbn_core.train.loop import TrainLog, train
from dbn_core.train.monitor import Monitor
from dbn_core.train.recipe import Recipe

State = Mapping[str, torch.Tensor]
M = TypeVar("M", bound=nn.Module)


@dataclass
class Workspace:
    """Shared by fitting and predicting: data, the suite's network and task, a device, seed axes, trained parts."""

    data: Dataset
    spec: Any  # of the task's networks; a NetworkSpec where images are classified
    device: torch.device
    axes: Mapping[str, Any]
    parts: Mapping[str, State] = field(default_factory=dict)
    task: Task = field(default_factory=Classification)

    @property
    def classes(self) -> int:
        """K."""
        return self.data.num_classes

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator for one purpose; the same purpose always gives the same numbers.

        The global generators are seeded as well; see :mod:`dbn_core.rng`.
        """
        return generator(**self.axes, purpose=purpose)

    def new_network(self, purpose: str = "init", spec: Any = None) -> Any:
        """A freshly initialised network of the suite's architecture (or of ``spec``): a member to be."""
        return self.initialise(self.bare_network(spec), purpose)

    def bare_network(self, spec: Any = None, classes: int | None = None) -> Any:
        """As :meth:`new_network`, without seeded initialisation, on the CPU; ``classes`` outputs in the place of K."""
        data = self.data
        return self.task.new_network(
            spec or self.spec, data.channels, data.image_size, classes or data.num_classes, data.mean, data.std
        )

    def initialise(self, module: M, purpose: str = "init") -> M:
        """Initialise a module's weights from the seed of ``purpose`` and move it to the device."""
        initialise_(module, self.generator(purpose))
        return module.to(self.device).to(memory_format=torch.channels_last)

    def load(self, module: M, part: str) -> M:
        """``module`` with the stored state of ``part``, on the device, in evaluation mode.

        Raises:
            SpecError: the method did not declare that it needs this part.
        """
        if part not in self.parts:
            raise SpecError(f"Part '{part}' is not available: declare it in Part(needs=...) or in Method.parts().")
        module.load_state_dict(dict(self.parts[part]))
        return module.to(self.device).to(memory_format=torch.channels_last).eval()

    def feature_channels(self, at: str) -> int:
        """Channels of the network's feature map at node ``at``; raises SpecError when there is no such node."""
        if known := self.spec.feature_channels(at):
            return int(known)
        network = self.bare_network().eval()
        example = torch.zeros(1, self.data.channels, *self.data.image_size)
        with torch.no_grad():
            return network.tap(at).features(example).shape[1]


@dataclass
class PredictContext(Workspace):
    """For :meth:`Method.predictor`: all parts of the method, and trained members by pool position."""

    members: Mapping[int, Any] = field(default_factory=dict)


@dataclass
class FitContext(Workspace):
    """For :meth:`Method.fit`.

    Attributes:
        recipe: how the pool members were trained, in the precision that the part is to be trained in.
        student_epochs: the budget of every trained component of a method, the same for all methods of a suite.
        members: frozen members in the order of the part's ``members``; the first is the source where there is one.
        parts: states of the parts that this one needs.
        stored_views: images that the part is trained on, where its teachers' logits are stored; None: online teachers.
        stored_logits: [V, N, K] for each member, on ``stored_views``; on the device where it has room for them.
        checkpoint: where trainings keep their state, a file for each purpose; None: nowhere.
        monitor: told about the progress of every training.
    """

    recipe: Recipe = field(default_factory=Recipe)
    student_epochs: int = 200
    members: Sequence[Any] = ()
    stored_views: Views | None = None
    stored_logits: Sequence[torch.Tensor] = ()
    checkpoint: Path | None = None
    monitor: Monitor | None = None
    run_name: str = "training"
    logs: list[TrainLog] = field(default_factory=list)
    records: dict[str, float | None] = field(default_factory=dict)
    _counters: dict[str, int] = field(default_factory=lambda: {"teacher_passes": 0})

    @property
    def teacher_passes(self) -> int:
        """Examples that went through teachers so far; the harness reports it as training cost."""
        return self._counters["teacher_passes"]

    @teacher_passes.setter
    def teacher_passes(self, value: int) -> None:
        self._counters["teacher_passes"] = value

    def record(self, **numbers: float) -> None:
        """Store numbers of this training with its part, by name; numbers that are not finite become null.

        The report shows their means over repetitions, with the meanings of :attr:`Method.records`.  No score and no key
        depends on them.

        Raises:
            SpecError: a value that is not a number.
        """
        for name, number in numbers.items():
            try:
                value = float(number)
            except (TypeError, ValueError, RuntimeError) as error:
                raise SpecError(f"{self.run_name}: record({name}=...) takes a number, not {shown(number)}.") from error
            self.records[name] = value if math.isfinite(value) else None

    @property
    def images(self) -> Split:
        """The images that the part is trained on: the training split, unless its views are of other images."""
        return self.data.train if self.stored_views is None else self.stored_views.split

    def student_recipe(self, **changes: Any) -> Recipe:
        """The members' recipe with the students' epochs and ``changes``; ``None`` leaves a field as it is.

        ``lr_scale`` multiplies the members' learning rate.

        Raises:
            SpecError: a name that is no field of :class:`~dbn_core.train.recipe.Recipe`.
        """
        if unknown := sorted(set(changes) - set(Recipe.model_fields) - {"lr_scale"}):
            raise SpecError(
                f"{self.run_name}: student_recipe() takes lr_scale and the fields of a recipe, not '{unknown[0]}': "
                "pass only those, for example with self.config.model_dump(include={'epochs', 'mixup'})."
            )
        changes = {"epochs": self.student_epochs} | {k: v for k, v in changes.items() if v is not None}
        scale = changes.pop("lr_scale", None)
        if scale is not None:
            changes["lr"] = self.recipe.lr * scale
        return self.recipe.replace(**changes)

    @torch.no_grad()
    def teach(self, batch: Batch) -> torch.Tensor:
        """Float32 logits [M, B, K] of all members of the part on the batch as augmented and mixed, or stored."""
        if batch.view is not None:
            stored = [logits[batch.view, batch.indices.to(logits.device)] for logits in self.stored_logits]
            return torch.stack([full_precision(logits.to(self.device)) for logits in stored])
        return self.teach_images(batch.images)

    @torch.no_grad()
    def teach_images(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [M, B, K] of all members of the part, always run online."""
        self.teacher_passes += len(images) * len(self.members)
        return torch.stack([member(images) for member in self.members])

    @torch.no_grad()
    def teach_by_some(
        self, images: torch.Tensor, count: int, draws: torch.Generator, mirror: bool = False
    ) -> torch.Tensor:
        """Logits [count, B, K] of ``count`` members for each image: all members answer for equal shares of the batch.

        Which ones answer is drawn anew, each with the same probability, so a loss that is linear in the members' mean
        prediction has the gradient of all M members in expectation.

        Args:
            mirror: an answer is on the mirror image with probability 1/2: the mean is that of members on both views.
        """
        self.teacher_passes += count * len(images)
        places = torch.arange(len(images)) + torch.arange(count)[:, None]
        asked = torch.randperm(len(self.members), generator=draws)[places % len(self.members)]
        mirrored = torch.randint(0, 2, asked.shape, generator=draws).bool() & mirror
        logits: torch.Tensor | None = None
        for number, member in enumerate(self.members):
            answers = torch.nonzero(asked == number)
            if not len(answers):
                continue
            slots, rows = answers.to(images.device).unbind(1)
            shown = images[rows]
            flipped = mirrored[asked == number].to(images.device)
            given = member(torch.where(flipped[:, None, None, None], shown.flip(-1), shown))
            logits = given.new_empty(*asked.shape, given.shape[-1]) if logits is None else logits
            logits[slots, rows] = given
        assert logits is not None, "a batch has images, and each asks a member"
        return logits

    @torch.no_grad()
    def teach_bridge(self, batch: Batch, tap: Tap) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`teach`, and the features [B, C, H, W] of the source that ``tap`` reads."""
        if batch.view is not None:
            return self.teach(batch), tap.features(batch.images)
        h, logits = tap(batch.images)
        self.teacher_passes += len(batch) * len(self.members)
        return torch.stack([logits, *(member(batch.images) for member in self.members[1:])]), h

    def train(
        self,
        module: nn.Module,
        step: Callable[[Batch], torch.Tensor],
        recipe: Recipe | None = None,
        *,
        purpose: str = "train",
        predict: Callable[[nn.Module, torch.Tensor], torch.Tensor] | None = None,
        step_generator: torch.Generator | None = None,
    ) -> TrainLog:
        """Train ``module`` in place; see :func:`dbn_core.train.loop.train`.

        Draws from the global generators (dropout) have a seed for each purpose, are resumed, and do not depend on draws
        of the validation.

        Args:
            step: maps a batch to a scalar loss.
            recipe: defaults to :meth:`student_recipe`.
            purpose: names the run when a part trains more than one module.
            predict: maps the module (as averaged, if it is) and images [B, C, H, W] to logits or log-probabilities
                [B, K]; needed when the recipe keeps the best epoch and the module itself is no classifier of images.
            step_generator: the generator ``step`` draws from, when it draws; :meth:`generator` of ``purpose``.
        """
        chosen = recipe or self.student_recipe()
        if self.stored_views is not None:
            self._check_views(chosen, self.stored_views)

        def evaluate(current: nn.Module) -> tuple[float, float]:
            predictor = current if predict is None else lambda images: predict(current, images)
            with seeded(self.device, **self.axes, purpose=purpose, draws="validation"):
                return self.task.evaluate(predictor, self.data, self.device)

        # A module that is not a predictor cannot be evaluated without `predict`.
        can = self.task.validates and (predict or chosen.keep != "last" or self.task.is_predictor(module))

        with seeded(self.device, **self.axes, purpose=purpose, draws="training"):
            log = train(
                module,
                step,
                self.images,
                chosen,
                flip=self.data.flip,
                generator=step_generator or self.generator(purpose),
                device=self.device,
                views=self.stored_views,
                evaluate=evaluate if can else None,
                checkpoint=self.checkpoint.with_suffix(f".{purpose}.safetensors") if self.checkpoint else None,
                counters=self._counters,
                monitor=self.monitor,
                run_name=self.run_name,
            )
        self.logs.append(log)
        return log

    def _check_views(self, recipe: Recipe, views: Views) -> None:
        """Check that the recipe asks for the augmentation of the stored views, which provide the images."""
        wanted = {
            "crop_pad": recipe.crop_pad,
            "flip": self.data.flip if recipe.flip is None else recipe.flip,
            "mixup": recipe.mixup,
            "cutmix": recipe.cutmix,
        }
        for name, value in vars(views.augmentation).items():
            if wanted[name] != value:
                raise SpecError(
                    f"{self.run_name}: its recipe has {name} = {wanted[name]}, its teachers' stored views {value}: "
                    "declare the mixup and what else differs in Part(teacher_mixup=..., teacher_augmentation=...), or "
                    "use online teachers."
                )


def freeze(module: M) -> M:
    """Evaluation mode, no gradients."""
    return module.eval().requires_grad_(False)
