"""Features for distances between sets of images: of small classifiers that this suite trains itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from dbn_core.data.augment import to_float
from dbn_core.generative.diffusion.fit import fit
from dbn_core.nets.init import initialise_
from dbn_core.seeds import generator

if TYPE_CHECKING:
    from dbn_core.data.dataset import Dataset

FEATURES = 64
_UPDATES, _BATCH = 400, 64
_KEPT: dict[str, list[nn.Module]] = {}


class Extractor(nn.Module):
    """Two convolutions and two linear layers; the first linear one's outputs are the features [B, 64]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(channels, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1, stride=2)
        self.features, self.head = nn.LazyLinear(FEATURES), nn.Linear(FEATURES, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features of images [B, C, H, W] in [0, 1]."""
        return F.relu(self.features(F.relu(self.two(F.relu(self.one(images)))).flatten(1)))


def extractors(data: Dataset, count: int) -> list[nn.Module]:
    """``count`` classifiers of the training split, each from a seed of its own; trained once in a process.

    They depend on the data alone, so that all methods of a suite are judged by the same ones, none of which is ranked.
    """
    if data.fingerprint not in _KEPT:
        _KEPT.clear()
        _KEPT[data.fingerprint] = []
    known = _KEPT[data.fingerprint]
    while len(known) < count:
        known.append(_trained(data, len(known)))
    return known[:count]


def _trained(data: Dataset, index: int) -> Extractor:
    draws = generator(purpose="extractor", data=data.fingerprint, index=index)
    network = Extractor(data.channels, data.num_classes)
    images, labels = to_float(data.train.images), data.train.labels
    network(images[:1])  # the lazy layer learns its size
    initialise_(network, draws)

    def loss() -> torch.Tensor:
        chosen = torch.randint(len(labels), (_BATCH,), generator=draws)
        return F.cross_entropy(network.head(network(images[chosen])), labels[chosen])

    fit(network, loss, _UPDATES)
    return network.requires_grad_(False)
