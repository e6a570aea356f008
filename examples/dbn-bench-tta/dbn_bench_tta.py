"""Two methods for dbn-bench that train no network: test-time augmentation, and a cache of training features."""

import numpy as np
import torch
from pydantic import Field
from sklearn.neighbors import NearestNeighbors
from torch import nn

from dbn_core import Config, Cost, Method, Part, SpecError, predict_split, register

# The image itself, then one pixel down, up, right and left, then the diagonals.
SHIFTS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)]


class Shifted(nn.Module):
    """One network on shifted copies of the images; what leaves on one side comes back on the other."""

    def __init__(self, network, shifts):
        super().__init__()
        self.network, self.shifts = network, shifts

    def forward(self, images):
        """[B, C, H, W] to log-probabilities [M, B, K], one term for each shift."""
        return torch.stack([self.network(images.roll(by, (2, 3))).log_softmax(-1) for by in self.shifts])


@register("shifts")
class ShiftedCopies(Method):
    """Test-time augmentation: one member on the image and its copies shifted by a pixel; the size counts copies."""

    title = "TTA (shifts)"
    reference = "Ashukha et al., 2020, arXiv 2002.06470"
    nested = True  # the terms of a small size are the first of a larger one

    def check_size(self, size):
        """There are nine shifts."""
        if not 1 <= size <= len(SHIFTS):
            raise SpecError(f"shifts: the size is 1 to {len(SHIFTS)} shifts, not {size}.")

    def members(self, size):
        """The source alone, at every size."""
        return (0,)

    def terms(self, size):
        """One for each shift."""
        return size

    def predictor(self, size, context):
        """The member, run once for each shift."""
        return Shifted(context.members[0], SHIFTS[:size])


class Cached(nn.Module):
    """A network whose prediction is mixed with the labels of the nearest training features, found by scikit-learn."""

    def __init__(self, network, keys, labels, config):
        super().__init__()
        self.features, self.head = split(network)
        self.labels, self.classes, self.config = labels.numpy(), network.classes, config
        self.index = NearestNeighbors(n_neighbors=min(config.neighbours, len(keys)), algorithm="brute").fit(
            keys.numpy()
        )

    def forward(self, images):
        """[B, C, H, W] to log-probabilities [B, K]."""
        h = self.features(images)
        distances, found = self.index.kneighbors(pooled(h).cpu().numpy())
        weights = np.exp(-distances / self.config.temperature) + 1e-12  # a little, so that no row is all zero
        votes = np.eye(self.classes)[self.labels[found]] * (weights / weights.sum(1, keepdims=True))[..., None]
        cache = torch.from_numpy(votes.sum(1)).to(h)
        share = self.config.share
        return ((1 - share) * self.head(h).softmax(-1) + share * cache).log()


@register("cache")
class FeatureCache(Method):
    """Feature cache: one member mixed with a softened nearest-neighbour vote among the training features."""

    title = "Cache"
    reference = "Orhan, 2018, arXiv 1805.08709"

    class Config(Config):
        """How the neighbours vote, and how much their vote weighs."""

        neighbours: int = Field(20, ge=1, description="training examples that vote")
        temperature: float = Field(1.0, gt=0, description="of the vote's weights exp(-distance / temperature)")
        share: float = Field(0.2, gt=0, lt=1, description="weight of the vote; the rest is the network's own")

    def check_size(self, size):
        """Only size 1 exists."""
        if size != 1:
            raise SpecError(f"cache: the size is 1, not {size}; it uses one member.")

    def parts(self, size):
        """The features of the training split, for every kind of vote."""
        return [Part("keys", members=(0,), settings={})]

    def members(self, size):
        """The member whose features they are."""
        return (0,)

    def fit(self, part, context):
        """Pooled last features [N, D] of the training images and their labels [N]."""
        features, _ = split(context.members[0])
        train = context.data.train
        keys = predict_split(lambda images: pooled(features(images)), train, context.device)
        return {"keys": keys, "labels": train.labels}

    def predictor(self, size, context):
        """The member, with the stored features behind it."""
        keys = context.parts["keys"]
        return Cached(context.members[0], keys["keys"], keys["labels"], self.config)

    def cost(self, size, context, counted):
        """Outside torch: the stored features, and a product of each with the query."""
        stored = context.parts["keys"]["keys"].numel()
        return counted + Cost(params=stored, macs=stored)


def split(network):
    """A network before and after its last block."""
    return network.split(f"block{len(network.blocks) - 1}")


def pooled(features):
    """[B, C, H, W] to [B, C]."""
    return features.mean((2, 3))
