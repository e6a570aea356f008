"""Features of images for distances between sets of them, from small classifiers that this package trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from dbn_core.data.augment import to_float
from dbn_core.nets.init import initialise_
from dbn_core.rng import generator

if TYPE_CHECKING:
    from dbn_core.data.dataset import Dataset

FEATURES = 64
_UPDATES, _BATCH = 400, 64
_CACHE: dict[str, list[Extractor]] = {}  # by fingerprint of the data


class Extractor(nn.Module):
    """Two convolutions and two linear layers; the outputs of the first linear layer are the features [B, 64]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(channels, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1, stride=2)
        self.features, self.head = nn.LazyLinear(FEATURES), nn.Linear(FEATURES, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features of images [B, C, H, W] in [0, 1]."""
        return F.relu(self.features(F.relu(self.two(F.relu(self.one(images)))).flatten(1)))


def extractors(data: Dataset, count: int) -> list[Extractor]:
    """``count`` classifiers of the training split, each from its own seed; trained once in a process.

    They depend on the data alone, so all methods of a suite are scored with the same ones.
    """
    if data.fingerprint not in _CACHE:
        _CACHE.clear()
        _CACHE[data.fingerprint] = []
    known = _CACHE[data.fingerprint]
    while len(known) < count:
        known.append(_trained(data, len(known)))
    return known[:count]


def _trained(data: Dataset, index: int) -> Extractor:
    """One classifier: 400 updates of Adam with clipped gradients and a cosine schedule.

    It does not use :func:`dbn_core.train.loop.train`, which has epochs, weight decay and no clipping: every stored
    classifier-FD depends on the bits of these networks.  They train in a second, so there is nothing to resume.
    """
    draws = generator(purpose="extractor", data=data.fingerprint, index=index)
    network = Extractor(data.channels, data.num_classes)
    images, labels = to_float(data.train.images), data.train.labels
    network(images[:1])  # the lazy layer learns its size
    initialise_(network, draws)

    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _UPDATES)
    network.train()
    for _ in range(_UPDATES):
        chosen = torch.randint(len(labels), (_BATCH,), generator=draws)
        loss = F.cross_entropy(network.head(network(images[chosen])), labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)
