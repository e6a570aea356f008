"""A network with dropout that stays on when it predicts, and its stochastic passes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from dbn_core.nets.network import Network
from dbn_core.nets.precision import full_precision
from dbn_core.nets.resnet import BasicBlock, Classifier

Place = Literal["last", "residual"]


class DroppedMaps(nn.Module):
    """A layer whose output channels are dropped, each image's at random, in training and in evaluation."""

    def __init__(self, layer: Any, rate: float) -> None:
        super().__init__()
        self.layer, self.rate = layer, rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W]; what is kept is divided by its share."""
        return F.dropout2d(self.layer(x), self.rate)


class LastPasses(nn.Module):
    """T passes of the last linear layer of any network, each of which drops other features.

    Args:
        network: its logits are the output of a linear layer.
        rate: probability that a feature is dropped.
        passes: T.
    """

    def __init__(self, network: Network, rate: float, passes: int = 1) -> None:
        super().__init__()
        self.features, self.linear = network.last_layer()
        self.rate, self.passes = rate, passes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to log-probabilities [T, B, K]; the features are computed once."""
        h = self.features(images)
        logits = [full_precision(self.linear(F.dropout(h, self.rate))) for _ in range(self.passes)]
        return torch.stack(logits).log_softmax(-1)


class Passes(nn.Module):
    """T passes of one ResNet, each of which drops other channels: images to log-probabilities [T, B, K].

    Args:
        network: changed where the place is ``residual``.
        rate: probability that a channel is dropped.
        place: ``last`` drops pooled features, and what comes before them runs once for all passes; ``residual`` drops
            channels between the two convolutions of every block, and every pass is one of the whole network.
        passes: T.
    """

    def __init__(self, network: Classifier, rate: float, place: Place, passes: int = 1) -> None:
        super().__init__()
        self.network, self.rate, self.place, self.passes = network, rate, place, passes
        if place == "residual":
            for block in network.blocks:
                if isinstance(block, BasicBlock):
                    block.conv1 = DroppedMaps(block.conv1, rate)  # type: ignore[assignment]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [T, B, K]."""
        if self.place == "residual":
            return torch.stack([self.network(images) for _ in range(self.passes)]).log_softmax(-1)
        h = images
        for block in self.network.blocks:
            h = block(h)
        heads = [self.network.head(F.dropout2d(h, self.rate)) for _ in range(self.passes)]
        return torch.stack(heads).log_softmax(-1)
