"""Weight initialisation from a generator, so that no network depends on the global random state."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import nn

# Standard deviation of a unit normal truncated to [-2, 2]; JAX divides by it so that truncation keeps the variance.
_TRUNCATED_STD = 0.87962566103423978


@runtime_checkable
class Resettable(Protocol):
    """A module that initialises itself and its submodules."""

    def reset(self, generator: torch.Generator) -> None:
        """Fill all parameters by draws of ``generator``."""


def truncated_normal_(weight: torch.Tensor, gain: float, generator: torch.Generator) -> None:
    """Fill with a truncated normal of variance ``gain / fan_in`` (He normal: gain 2; LeCun normal: gain 1)."""
    fan_in = weight[0].numel()
    std = math.sqrt(gain / fan_in) / _TRUNCATED_STD
    with torch.no_grad():
        nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std, generator=generator)


def initialise_(module: nn.Module, generator: torch.Generator, gain: float = 2.0) -> None:
    """Initialise every convolution and linear layer (He normal by default, zero bias) and reset every norm layer.

    A module with a ``reset(generator)`` method initialises its whole subtree by it.
    """
    if isinstance(module, Resettable):
        module.reset(generator)
        return
    if isinstance(module, nn.Conv2d | nn.Linear):
        truncated_normal_(module.weight, gain, generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        module.reset_parameters()
    for child in module.children():
        initialise_(child, generator, gain)
