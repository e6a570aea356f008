"""MC dropout: one network trained with dropout that stays on when it predicts; each stochastic pass is one term.

Gal and Ghahramani, 2016, arXiv 1506.02142.  Whole channels are dropped, as in "filter-wise" dropout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from dbn_core.errors import SpecError
from dbn_core.methods import method
from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext
    from dbn_core.nets.network import Network
    from dbn_core.nets.spec import NetworkOptions


@register("mc-dropout")
class MonteCarloDropout(Method):
    """A network with dropout in evaluation too; the size counts passes."""

    same_network = "none"
    title = "MC dropout"
    reference = "Gal and Ghahramani, ICML 2016, arXiv 1506.02142"
    networks = "runs M, or 1 with M last layers; trains 1"
    nested = True
    needs_last_layer = True

    class Config(method.Config):
        """With ``place=last`` a pass costs the last layer, with ``place=residual`` the whole network."""

        rate: float = Field(0.2, gt=0, lt=1, description="probability that a channel is dropped")
        place: Literal["last", "residual"] = Field(
            "last", description="what is dropped: pooled features, or channels within every block"
        )
        lr_scale: float = Field(1.0, gt=0, description="learning rate relative to the members'")
        epochs: int | None = Field(None, ge=1, description="training length; default: the suite's student budget")

    def check_network(self, network: NetworkOptions) -> None:
        """Channels within blocks are those of built-in networks."""
        super().check_network(network)
        if self.config.place == "residual" and not network.splits:
            raise SpecError(
                f"mc-dropout: place=residual drops channels within residual blocks, which '{network.label}' does not "
                "name: remove place, or use a built-in ResNet."
            )

    def parts(self, size: int) -> list[Part]:
        """One network, for any number of passes."""
        return [Part("network")]

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Cross-entropy of one pass."""
        from torch.nn import functional as F

        config = self.config
        network = self._passes(context.new_network())

        def step(batch: Batch) -> torch.Tensor:
            return F.cross_entropy(network(batch.images)[0], batch.mixed_labels(context.classes))

        recipe = context.student_recipe(epochs=config.epochs, lr_scale=config.lr_scale)
        context.train(network, step, recipe, predict=lambda current, images: current(images)[0])
        return network

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The network with T passes."""
        return context.load(self._passes(context.bare_network(), size), "network")

    def _passes(self, network: Network, size: int = 1) -> nn.Module:
        from dbn_core.nets.dropout import LastPasses, Passes
        from dbn_core.nets.resnet import Classifier

        if isinstance(network, Classifier):
            return Passes(network, self.config.rate, self.config.place, size)
        return LastPasses(network, self.config.rate, size)
