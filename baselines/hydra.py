"""Hydra: one student with a head for each teacher, so that the differences between teachers are learnt too.

Tran et al., 2020, arXiv 2001.04694.  For teachers f_i with logits z_i, a body b and heads h_i:

    loss = tau^2 mean_i CE(softmax(z_i / tau), softmax(h_i(b(x)) / tau)),    p(y | x) = mean_i softmax(h_i(b(x)))

The paper first trains one head on the mean prediction and copies it M times; here all heads are trained from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from dbn_core.errors import SpecError
from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import register
from dbn_core.methods.student import StartOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext, Workspace
    from dbn_core.nets.spec import NetworkOptions


@register("hydra")
class Hydra(Method):
    """One student body with M heads, each taught by a member of its own (Hydra)."""

    same_network = "none"
    title = "Hydra"
    reference = "Tran et al., 2020, arXiv 2001.04694"
    networks = "runs 1 with M heads; trains it"

    class Config(StartOptions):
        """The options of ``ed``, and where the heads begin."""

        tau: float = Field(4.0, gt=0, description="distillation temperature")
        split_at: str = Field(
            "block12",
            description="last block of the body; the network's last one leaves linear heads, which every network that "
            "is no ResNet has anyway",
        )
        width: float = Field(1.0, gt=0, description="multiplier of the student's channels")

    def check_network(self, network: NetworkOptions) -> None:
        """Heads of blocks need a chain of blocks; linear ones do not."""
        super().check_network(network)
        if not network.splits and self.config.split_at != self.Config.model_fields["split_at"].default:
            raise SpecError(
                f"{self.name}: '{network.label}' is no chain of blocks, so its heads are linear: remove split_at, or "
                "use a ResNet."
            )
        if not network.splits and self.config.start == "source":
            raise SpecError(f"{self.name}: '{network.label}' has one head and not several: drop start.")

    def feature_nodes(self, network: NetworkOptions) -> tuple[str, ...]:
        """The last block of the body."""
        return (self.config.split_at,) if network.splits else ()

    def parts(self, size: int) -> list[Part]:
        """One student of all teachers."""
        config, members = self.config, tuple(range(size))
        return [Part("student", members, teacher_mixup=config.mixup, teacher_augmentation=config.augmentation())]

    def heads(self, size: int) -> int:
        """How many heads learn from ``size`` teachers."""
        return size

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Train body and heads, each head on its teacher's softened prediction."""
        student = self.student(len(part.members), context, self.source(context))

        def step(batch: Batch) -> torch.Tensor:
            return self.loss(student(batch.images), context.teach(batch))

        self.train(student, step, context)
        return student

    def loss(self, heads: torch.Tensor, teachers: torch.Tensor) -> torch.Tensor:
        """The mean of the heads' losses, each with its own teacher; one head alone learns from the mean of all.

        Args:
            heads: log-probabilities [heads, B, K], which serve as logits: a softmax does not see the difference.
            teachers: logits [M, B, K].
        """
        from dbn_core.distillation import ed_loss

        if len(heads) == 1:
            return ed_loss(heads[0], teachers, self.config.tau)
        return ed_loss(heads.flatten(0, 1), teachers.flatten(0, 1)[None], self.config.tau)

    def train(
        self,
        student: nn.Module,
        step: Callable[[Batch], torch.Tensor],
        context: FitContext,
        generator: torch.Generator | None = None,
    ) -> None:
        """Train by the student's recipe; validation looks at the mean of the heads' probabilities."""
        self.config.train(student, step, context, lambda current, images: current(images).logsumexp(0), generator)

    def source(self, context: FitContext) -> Mapping[str, torch.Tensor] | None:
        """The weights that body and heads begin with; None: fresh ones."""
        return context.members[0].state_dict() if self.config.start == "source" else None

    def student(self, size: int, context: Workspace, start: Mapping[str, torch.Tensor] | None = None) -> nn.Module:
        """A network, which has the first head itself, and heads of others on its features.

        Where networks are no chains of blocks, it is one network of as many logits as all heads have.
        """
        from dbn_core.methods.predictors import FeatureMixture, LinearHeads

        config, heads = self.config, self.heads(size)
        if not context.spec.splits:
            return context.initialise(LinearHeads(context.bare_network(classes=heads * context.classes), heads))
        purposes = ["init", *(f"head-{index}" for index in range(1, heads))]
        networks = [context.new_network(purpose, context.spec.scaled(config.width)) for purpose in purposes]
        for network in networks if start else ():
            network.load_state_dict(start)
        return FeatureMixture(
            networks[0], config.split_at, [network.split(config.split_at)[1] for network in networks[1:]]
        )

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The body once, then every head."""
        return context.load(self.student(size, context), "student")
