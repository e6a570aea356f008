"""MC dropout: one network trained with dropout that stays on when it predicts; each stochastic pass is one term."""

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from dbn_core import Config, Method, Part, register


class Dropped(nn.Module):
    """A network of which every pass drops other pooled features; what comes before them runs once for all passes."""

    def __init__(self, network, rate, passes=1):
        super().__init__()
        self.features, self.head = network.split(f"block{len(network.blocks) - 1}")
        self.rate, self.passes = rate, passes

    def forward(self, images):
        """[B, C, H, W] to log-probabilities [T, B, K], one term for each pass."""
        h = self.features(images)
        return torch.stack([self.head(F.dropout2d(h, self.rate)) for _ in range(self.passes)]).log_softmax(-1)


@register("mc-dropout")
class MonteCarloDropout(Method):
    """A network with dropout before its last layer, in evaluation too; the size counts passes."""

    title = "MC dropout"
    reference = "Gal and Ghahramani, 2016, arXiv 1506.02142"
    nested = True  # T passes are the first T of more

    class Config(Config):
        """How much is dropped."""

        rate: float = Field(0.2, gt=0, lt=1, description="share of the pooled features that each pass drops")

    def parts(self, size):
        """One network, whatever the number of passes."""
        return [Part("network")]

    def terms(self, size):
        """One for each pass."""
        return size

    def fit(self, part, context):
        """Cross-entropy of one pass."""
        network = Dropped(context.new_network(), self.config.rate)

        def step(batch):
            return F.cross_entropy(network(batch.images)[0], batch.mixed_labels(context.classes))

        context.train(network, step, predict=lambda current, images: current(images)[0])
        return network

    def predictor(self, size, context):
        """The network with T passes."""
        return context.load(Dropped(context.new_network(), self.config.rate, size), "network")
