"""Bridges that start from a distilled student, towards members that the student was not taught by.

The bridges of BN and DBN start from one member.  Here the source s is the student of ``ed``, taught by the first
members, and bridge l, a score network eps_l on its features h(x), learns from a group G_l of others without diffusion:

    z_l(x) = s(x) / t - eps_l(h(x))
    loss_l = KL(mean_{i in G_l} softmax(f_i(x)) || softmax(z_l(x)))
    p(y | x) = mean of softmax(s(x)) and softmax(z_l(x)), l = 1 ... L

With ``joint``, source and bridges go on from the trained student together, by the sum of these losses and ED's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from baselines.ensemble_distillation import EnsembleDistillation
from dbn_core.errors import SpecError
from dbn_core.methods.method import Method, Part, TrainingCost
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from baselines.direct import DirectRegression
    from dbn_core.bridge.denoiser import Denoiser
    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext, Workspace
    from dbn_core.nets.network import Network
    from dbn_core.nets.spec import NetworkOptions
    from dbn_core.train.recipe import Recipe


@register("student-bridge")
class StudentBridge(Method):
    """A distilled student as the source of bridges towards further members."""

    same_network = "none"
    title = "Student + bridges"
    reference = "a combination of arXiv 1503.02531 (ED) and arXiv 2404.15814 (DBN) without its diffusion"
    networks = "runs 1 and a small network a bridge; trains all"

    class Config(EnsembleDistillation.Config):
        """The options of ``ed`` are the source's; the student of an ``ed`` entry with the same ones is used again."""

        source_members: int = Field(2, ge=1, description="members that teach the source, from the first one on")
        members_per_bridge: int = Field(2, ge=1, description="members that teach each bridge")
        bridge_from: int | None = Field(
            None, ge=0, description="position of the first member that teaches a bridge; default: after the source's"
        )
        joint: bool = Field(False, description="train the source on, together with its bridges")
        split_at: str = Field("block1", description="block whose output the bridges read")
        score_network: str = Field("v1.1.8", description="architecture of a bridge, as in dbn")
        score_width: float = Field(1.0, gt=0, description="multiplier of its channels")
        temperature: float = Field(1.0, gt=0, description="t, by which a bridge divides the source's logits")
        bridge_mixup: float = Field(
            0.4, ge=0, allow_inf_nan=False, description="alpha of per-example mixup while bridges are trained"
        )
        bridge_lr: float = Field(2.5e-4, gt=0, description="peak learning rate of bridges (AdamW, no weight decay)")
        bridge_epochs: int | None = Field(None, ge=2, description="length; default: the suite's student budget")

    @property
    def _first(self) -> int:
        config = self.config
        return config.source_members if config.bridge_from is None else config.bridge_from

    def check_size(self, size: int) -> None:
        """All teachers of the source, and whole groups of teachers of bridges."""
        config, left = self.config, size - self._first
        if size < config.source_members or left < config.members_per_bridge or left % config.members_per_bridge:
            raise SpecError(
                f"student-bridge: {config.source_members} members teach the source, and from member {self._first + 1} "
                f"on each {config.members_per_bridge} teach a bridge, which does not fit size {size}: change the size, "
                "source_members, members_per_bridge or bridge_from."
            )

    def feature_nodes(self, network: NetworkOptions) -> tuple[str, ...]:
        """The node of the student whose features the bridges read."""
        return (self.config.split_at,)

    def _groups(self, size: int) -> list[tuple[int, ...]]:
        """Positions of the members that teach each bridge."""
        return [
            tuple(range(low, low + self.config.members_per_bridge))
            for low in range(self._first, size, self.config.members_per_bridge)
        ]

    def parts(self, size: int) -> list[Part]:
        """The student, which is ED's; then its bridges one by one, or all at once with the source."""
        config, groups = self.config, self._groups(size)
        student = self._distillation.shared_part(config.source_members)
        # The members of a part and the key of the student identify the teachers.
        settings = config.key(exclude={"source_members", "bridge_from", "members_per_bridge"})
        shown: dict[str, Any] = {"teacher_mixup": config.bridge_mixup, "teacher_augmentation": config.augmentation()}
        if config.joint:
            members = tuple(sorted({*student.members, *(member for group in groups for member in group)}))
            settings["groups"] = [list(group) for group in groups]
            return [student, Part("joint", members, (student.name,), settings, **shown)]
        return [student] + [
            Part(f"bridge-{index}", group, (student.name,), settings, **shown) for index, group in enumerate(groups, 1)
        ]

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """The student is ED's, a bridge that of ``direct``; together they cost as much as the network."""
        if part.name == "student":
            return self._distillation.training_cost(part, recipe, student_epochs)
        cost = self._direct().training_cost(dataclasses.replace(part, needs=()), recipe, student_epochs)
        return dataclasses.replace(cost, share=1.0) if self.config.joint else cost

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """The student as ``ed`` trains it, a bridge of the frozen student, or student and bridges together."""
        from torch import nn

        from dbn_core.methods.context import freeze

        if part.name == "student":
            return self._distillation.fit(part, context)
        source = context.load(self._distillation.student(context), "student")
        groups = part.settings["groups"] if self.config.joint and part.settings else [part.members]
        places = [[part.members.index(member) for member in group] for group in groups]
        bridges = nn.ModuleList(self._bridge(context, f"init-{index}") for index in range(len(groups)))
        trained = nn.ModuleDict({"source": source, "bridges": bridges}) if self.config.joint else bridges
        if not self.config.joint:
            freeze(source)
        self._train(trained, source, bridges, places, context)
        return trained if self.config.joint else bridges[0]

    def _train(
        self, trained: nn.Module, source: Network, bridges: Any, places: list[list[int]], context: FitContext
    ) -> None:
        """Train bridges, and their source where that is joint.

        Args:
            trained: what is optimised: the bridges, or source and bridges.
            places: of each bridge's teachers among the part's members, which the source's teachers come first of.
        """
        import torch

        from dbn_core.bridge.denoiser import kl_to
        from dbn_core.bridge.process import target_logits
        from dbn_core.distillation import ed_loss

        config, joint = self.config, self.config.joint
        tap = source.tap(config.split_at)

        def step(batch: Batch) -> torch.Tensor:
            teachers = context.teach(batch)
            with torch.set_grad_enabled(joint):
                h, logits = tap(batch.images)
            losses = []
            for bridge, group in zip(bridges, places, strict=True):
                target = target_logits(torch.stack([teachers[place] for place in group]))
                losses.append(kl_to(bridge(h, logits / config.temperature, 1), target))
            if joint:
                labels = batch.mixed_labels(context.classes)
                losses.append(ed_loss(logits, teachers[: config.source_members], config.tau, config.alpha, labels))
            return torch.stack(losses).sum()

        def predict(current: Any, images: torch.Tensor) -> torch.Tensor:
            ends = (current["source"], current["bridges"]) if joint else (source, current)
            return self._predictor(*ends)(images).logsumexp(0)

        context.train(trained, step, self._recipe(context), predict=predict)

    def _recipe(self, context: FitContext) -> Recipe:
        """As of ``direct``: AdamW and an average of the weights."""
        from baselines.dbn.training import bridge_recipe

        recipe = context.recipe.replace(**self.config.augmentation())
        return bridge_recipe(self._direct().config, dataclasses.replace(context, recipe=recipe))

    def _direct(self) -> DirectRegression:
        """The method whose recipe bridges follow."""
        from baselines.direct import DirectRegression

        config = self.config
        return DirectRegression(
            DirectRegression.Config(lr=config.bridge_lr, mixup=config.bridge_mixup, epochs=config.bridge_epochs)
        )

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The source once, then every bridge on its features and logits."""
        from torch import nn

        source, count = self._distillation.student(context), len(self._groups(size))
        bridges = [self._bridge(context) for _ in range(count)]
        if self.config.joint:
            context.load(nn.ModuleDict({"source": source, "bridges": nn.ModuleList(bridges)}), "joint")
        else:
            context.load(source, "student")
            for index, bridge in enumerate(bridges, 1):
                context.load(bridge, f"bridge-{index}")
        return self._predictor(source, bridges)

    def _predictor(self, source: Network, bridges: Iterable[Denoiser]) -> nn.Module:
        from dbn_core.methods.predictors import BridgedSource

        config = self.config
        return BridgedSource(source, config.split_at, bridges, config.temperature, own_term=True)

    @property
    def _distillation(self) -> EnsembleDistillation:
        return EnsembleDistillation.within(self.config)

    def _bridge(self, context: Workspace, purpose: str = "init") -> Denoiser:
        """A fresh score network that takes one step of displacement."""
        from dbn_core.bridge.denoiser import Denoiser
        from dbn_core.bridge.schedule import step_variances
        from dbn_core.nets.score import ScoreNetwork

        config = self.config
        scaled = dataclasses.replace(context, spec=context.spec.scaled(config.width))
        channels = scaled.feature_channels(config.split_at)
        network = ScoreNetwork(channels, context.classes, config.score_network, config.score_width)
        return context.initialise(Denoiser(network, step_variances(1, 1.0, 1.0)), purpose)
