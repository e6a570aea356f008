"""Small trainings by the loop: data, networks, and runs of a few steps."""

from __future__ import annotations

import torch
from torch import nn

from dbn_core.data.dataset import Split
from dbn_core.rng import generator
from dbn_core.train.loop import train
from dbn_core.train.recipe import Recipe

CPU = torch.device("cpu")


def split(examples=24, side=4, seed=0):
    images = torch.randint(0, 256, (examples, 1, side, side), generator=generator(seed=seed), dtype=torch.uint8)
    return Split(images, torch.arange(examples) % 3)


def network(seed=0):
    """A network with everything that has a state: convolution, BatchNorm buffers, linear layer."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(16, 3))


class Scalar(nn.Module):
    """One weight whose loss is ``slope * weight``, so that every update is known beforehand."""

    def __init__(self, start=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([start], dtype=torch.float64))

    def forward(self, slope=1.0):
        return slope * self.weight.sum()


def recipe(**changes):
    return Recipe(**{"epochs": 4, "batch_size": 8, "crop_pad": 1, "weight_decay": 0.0, "lr": 0.05, **changes})


def run(module, step, chosen, data=None, seed=0, **options):
    options = {"flip": True, "generator": generator(seed=seed, purpose="train"), "device": CPU, **options}
    return train(module, step, data or split(), chosen, **options)


def cross_entropy(module):
    return lambda batch: nn.functional.cross_entropy(module(batch.images), batch.labels)
