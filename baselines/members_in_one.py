"""M members in one network, from labels alone: Packed-Ensembles, BatchEnsemble, Masksembles and MIMO.

What the papers change in the network is in :mod:`dbn_core.nets.one_network`.  The weights depend on M, so each size has
a network of its own.  All work with BatchNorm and with FRN.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dbn_core.methods import method
from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext, Workspace
    from dbn_core.train.recipe import Recipe


class TrainingOptions(method.Config):
    """How the network is trained."""

    lr_scale: float = Field(1.0, gt=0, description="learning rate relative to the members'")
    epochs: int | None = Field(None, ge=1, description="training length; default: the suite's student budget")


class MembersInOne(Method):
    """What the methods of this file share."""

    same_network = "none"
    needs_blocks = True

    class Config(TrainingOptions):
        """See :class:`TrainingOptions`."""

    def parts(self, size: int) -> list[Part]:
        """A network for this size."""
        return [Part(f"network-{size}")]

    @abstractmethod
    def network(self, size: int, context: Workspace) -> nn.Module:
        """Images [B, C, H, W] to logits [M, B, K], with any weights."""

    def loss(
        self, network: Any, images: torch.Tensor, labels: torch.Tensor, recipe: Recipe, generator: torch.Generator
    ) -> torch.Tensor:
        """Of a batch with label probabilities [B, K]: here the mean cross-entropy of members that all see all of it."""
        from torch.nn import functional as F

        logits = network(images)
        return F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits), 1))

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Train the network by :meth:`loss`; validation looks at the members' mean."""
        network = context.initialise(self.network(int(part.name.removeprefix("network-")), context))
        generator = context.generator("train")
        recipe = context.student_recipe(epochs=self.config.epochs, lr_scale=self.config.lr_scale)

        def step(batch: Batch) -> torch.Tensor:
            return self.loss(network, batch.images, batch.mixed_labels(context.classes), recipe, generator)

        def predict(current: Any, images: torch.Tensor) -> torch.Tensor:
            terms: torch.Tensor = current(images).log_softmax(-1)
            return terms.logsumexp(0)

        context.train(network, step, recipe, step_generator=generator, predict=predict)
        return network

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The network, one term for each member."""
        from dbn_core.nets.one_network import MemberTerms

        return MemberTerms(context.load(self.network(size, context), f"network-{size}"))


@register("packed")
class PackedEnsemble(MembersInOne):
    """M narrow networks as groups of one wide one, at alpha^2 / (M gamma) of its cost (Packed-Ensembles)."""

    title = "Packed"
    reference = "Laurent et al., ICLR 2023, arXiv 2210.09184"
    networks = "runs 1; trains 1"

    class Config(TrainingOptions):
        """With alpha = 2 and M = 4 the whole costs one network."""

        alpha: float = Field(2.0, gt=0, description="widths relative to the suite's network")
        gamma: int = Field(1, ge=1, description="groups within a member; the paper has 2, on wider networks")

    def network(self, size: int, context: Workspace) -> nn.Module:
        """Grouped convolutions, and a head for each member."""
        from dbn_core.nets.one_network import PackedNetwork

        return PackedNetwork(context.bare_network(), size, self.config.alpha, self.config.gamma)


class _Pieces(MembersInOne):
    """Members that learn from a piece of each batch each."""

    def loss(
        self, network: Any, images: torch.Tensor, labels: torch.Tensor, recipe: Recipe, generator: torch.Generator
    ) -> torch.Tensor:
        """Mean cross-entropy of member m on the m-th piece of the batch."""
        from torch.nn import functional as F

        count = len(images) // network.members * network.members
        return F.cross_entropy(network(images[:count], pieces=True).flatten(0, 1), labels[:count])


@register("batch-ensemble")
class BatchEnsemble(_Pieces):
    """One network whose members differ by a rank-one factor of each weight; M times the cost (BatchEnsemble).

    FRN divides by the scale of each channel, so there the factors of the outputs do nothing and those of the inputs act
    alone.  The paper trains half as long again: ``epochs``.
    """

    title = "BatchEnsemble"
    reference = "Wen et al., ICLR 2020, arXiv 2002.06715"
    networks = "runs M; trains 1"

    def network(self, size: int, context: Workspace) -> nn.Module:
        """Rank-one factors in every layer."""
        from dbn_core.nets.one_network import batch_ensemble

        return batch_ensemble(context.bare_network(), size)

    def loss(
        self, network: Any, images: torch.Tensor, labels: torch.Tensor, recipe: Recipe, generator: torch.Generator
    ) -> torch.Tensor:
        """That of pieces, without the L2 that SGD adds to every parameter: the factors have none."""
        import torch

        loss = super().loss(network, images, labels, recipe, generator)
        if recipe.optimizer != "sgd":
            return loss
        factors = [p for name, p in network.named_parameters() if name.endswith((".r", ".s"))]
        return loss - 0.5 * recipe.weight_decay * torch.stack([p.square().sum() for p in factors]).sum()


@register("masksembles")
class Masksembles(_Pieces):
    """One network whose members each leave out a fixed choice of channels; M times the cost (Masksembles)."""

    title = "Masksembles"
    reference = "Durasov et al., CVPR 2021, arXiv 2012.08334"
    networks = "runs M; trains 1"

    class Config(TrainingOptions):
        """A scale of 1 makes all members one network; the larger it is, the less they share."""

        scale: float = Field(2.0, ge=1, le=6, description="s; two masks overlap by 1 / (2 s - 1)")

    def network(self, size: int, context: Workspace) -> nn.Module:
        """Masks before both convolutions of every block."""
        from dbn_core.nets.one_network import masksemble

        return masksemble(context.bare_network(), size, self.config.scale)


@register("mimo")
class MultiInputMultiOutput(MembersInOne):
    """One network that reads M images and answers for each; to predict, it reads one image M times (MIMO).

    It costs one network to predict and ``repeat`` networks to train.  It needs a network with capacity to spare.
    """

    title = "MIMO"
    reference = "Havasi et al., ICLR 2021, arXiv 2010.06610"
    networks = "runs 1; trains 1"

    class Config(TrainingOptions):
        """The paper's numbers for a Wide ResNet of width 10."""

        repeat: int = Field(4, ge=1, description="how often each image is in a batch")

    def network(self, size: int, context: Workspace) -> nn.Module:
        """The suite's network with M times the input channels and M times the outputs."""
        from dbn_core.nets.one_network import MultiInput

        data = context.data
        network = context.task.new_network(
            context.spec,
            size * data.channels,
            data.image_size,
            size * data.num_classes,
            data.mean * size,
            data.std * size,
        )
        return MultiInput(network, size, data.channels)

    def loss(
        self, network: Any, images: torch.Tensor, labels: torch.Tensor, recipe: Recipe, generator: torch.Generator
    ) -> torch.Tensor:
        """Sum of the members' mean cross-entropies, each on images in an order of its own."""
        import torch
        from torch.nn import functional as F

        from dbn_core.nets.one_network import shuffled_rows

        drawn = shuffled_rows(len(images), network.members, self.config.repeat, generator)
        rows = [order.to(images.device) for order in drawn]
        logits = network(torch.cat([images[order] for order in rows], 1))
        return network.members * F.cross_entropy(logits.flatten(0, 1), torch.cat([labels[order] for order in rows]))
