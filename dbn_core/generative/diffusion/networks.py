"""Networks of a noised x and its noise level: a perceptron for points, a small U-Net for 8x8 images.

>>> import torch
>>> generator = torch.Generator().manual_seed(0)
>>> points, images = ScoreMLP(2, dropout=0.1), ScoreUNet(1)
>>> points.reset(generator), images.reset(generator)
(None, None)
>>> level = torch.zeros(5)  # log(sigma / alpha)
>>> points(torch.zeros(5, 2), level).shape, images(torch.zeros(5, 1, 8, 8), level).shape
(torch.Size([5, 2]), torch.Size([5, 1, 8, 8]))
>>> members = [fixed_dropout(points, generator) for _ in range(3)]  # members of MC dropout
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from dbn_core.nets.init import initialise_

M = TypeVar("M", bound=nn.Module)


class LevelEmbedding(nn.Module):
    """Sines and cosines of log(sigma / alpha), from about -7 to 5, then a linear layer and SiLU."""

    frequencies: torch.Tensor

    def __init__(self, dimension: int, out: int) -> None:
        super().__init__()
        # Wavelengths from 1.6, which separates neighbouring levels, to 63, which covers the range.
        frequencies = torch.logspace(math.log10(0.1), math.log10(4.0), dimension // 2)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.linear = nn.Linear(2 * len(frequencies), out)

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        """[B] to [B, out]."""
        angle = level[:, None] * self.frequencies
        return F.silu(self.linear(torch.cat([angle.cos(), angle.sin()], 1)))


class Dropout(nn.Module):
    """Dropout of units (channels of images) whose mask can be fixed: see :func:`fixed_dropout`."""

    mask: torch.Tensor | None

    def __init__(self, rate: float, units: int) -> None:
        super().__init__()
        self.rate, self.units = rate, units
        self.register_buffer("mask", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, units, ...] to the same; draws from the global generator while training, unless the mask is fixed."""
        shape = (self.units, *[1] * (x.ndim - 2))
        if self.mask is not None:
            return x * self.mask.reshape(shape)
        return x * F.dropout(x.new_ones(len(x), *shape), self.rate, self.training) if self.rate else x


def fixed_dropout(network: M, generator: torch.Generator) -> M:
    """A copy whose dropout masks are drawn once and kept: a member of MC dropout, the same at every step and time."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, Dropout):
            kept = torch.rand(module.units, generator=generator) >= module.rate
            like = next(network.parameters())
            module.mask = kept.to(like) / (1 - module.rate)
    return network


class ScoreMLP(nn.Module):
    """Perceptron with residual blocks, for data [B, D].

    Args:
        channels: D.
        width: units of a layer.
        depth: residual blocks.
        dropout: rate in front of each block's second layer.
        output_init: see :class:`~dbn_core.generative.diffusion.spec.ScoreSpec`.
    """

    def __init__(
        self, channels: int = 2, width: int = 96, depth: int = 3, dropout: float = 0.0, output_init: float = 0.0
    ) -> None:
        super().__init__()
        self.channels, self.output_init = channels, output_init
        self.level = LevelEmbedding(32, width)
        self.stem = nn.Linear(channels, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), Dropout(dropout, width), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.conditions = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.out = nn.Linear(width, channels)

    def reset(self, generator: torch.Generator) -> None:
        """He normal; the last layer as ``output_init`` says."""
        _initialise(self, generator)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """x [B, D] and level [B] to [B, K D], with K = 1 unless the head is widened; [B, D, 1, 1] keeps its axes."""
        condition, h = self.level(level), self.stem(x.flatten(1))
        for block, project in zip(self.blocks, self.conditions, strict=True):
            h = h + block(F.silu(h + project(condition)))
        return self.out(F.silu(h)).reshape(len(x), -1, *x.shape[2:])


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice; the level scales and shifts in between."""

    def __init__(self, channels: int, out: int, condition: int, dropout: float) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, out)
        self.conv_1, self.conv_2 = nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.project, self.dropout = nn.Linear(condition, 2 * out), Dropout(dropout, out)
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """[B, channels, H, W] and [B, condition] to [B, out, H, W]."""
        h = self.conv_1(F.silu(self.norm_1(x)))
        scale, shift = self.project(condition)[:, :, None, None].chunk(2, 1)
        return self.skip(x) + self.conv_2(self.dropout(F.silu(self.norm_2(h) * (1 + scale) + shift)))


class _Lower(nn.Module):
    """The lower resolutions of a U-Net with more than two; replaces its bottom block."""

    def __init__(self, width: int, condition: int, dropout: float, resolutions: int) -> None:
        super().__init__()
        self.down = ResidualBlock(width, width, condition, dropout)
        self.shrink = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.bottom = _bottom(2 * width, condition, dropout, resolutions - 1)
        self.grow = nn.Conv2d(2 * width, width, 1)
        self.up = ResidualBlock(2 * width, width, condition, dropout)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """[B, width, H, W] and [B, condition] to [B, width, H, W]."""
        high = self.down(x, condition)
        low = self.bottom(self.shrink(high), condition)
        return self.up(torch.cat([high, F.interpolate(self.grow(low), scale_factor=2)], 1), condition)


def _bottom(width: int, condition: int, dropout: float, resolutions: int) -> nn.Module:
    if resolutions == 1:
        return ResidualBlock(width, width, condition, dropout)
    return _Lower(width, condition, dropout, resolutions)


class ScoreUNet(nn.Module):
    """One residual block on the way down and up at each resolution, one at the bottom: 160,000 parameters with two.

    Args:
        channels: C of the images [B, C, H, W]; H and W are multiples of 2^(resolutions - 1).
        width: channels at full resolution, a multiple of 8; twice as many at half, and so on.
        dropout: rate in each block.
        resolutions: 2 or more.
        output_init: see :class:`~dbn_core.generative.diffusion.spec.ScoreSpec`.
    """

    def __init__(
        self, channels: int = 1, width: int = 32, dropout: float = 0.0, resolutions: int = 2, output_init: float = 0.0
    ) -> None:
        super().__init__()
        self.channels, self.output_init = channels, output_init
        self.level = LevelEmbedding(32, 2 * width)
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.down = ResidualBlock(width, width, 2 * width, dropout)
        self.shrink = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.bottom = _bottom(2 * width, 2 * width, dropout, resolutions - 1)
        self.grow = nn.Conv2d(2 * width, width, 1)
        self.up = ResidualBlock(2 * width, width, 2 * width, dropout)
        self.norm = nn.GroupNorm(8, width)
        self.out = nn.Conv2d(width, channels, 3, padding=1)

    def reset(self, generator: torch.Generator) -> None:
        """He normal; the last layer as ``output_init`` says."""
        _initialise(self, generator)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """x [B, C, H, W] and level [B] to [B, K C, H, W], with K = 1 unless the head is widened."""
        condition = self.level(level)
        high = self.down(self.stem(x), condition)
        low = self.bottom(self.shrink(high), condition)
        h = self.up(torch.cat([high, F.interpolate(self.grow(low), scale_factor=2)], 1), condition)
        return self.out(F.silu(self.norm(h)))


def _initialise(network: ScoreMLP | ScoreUNet, generator: torch.Generator) -> None:
    for child in network.children():
        initialise_(child, generator)
    if network.output_init:  # as "variance scaling" over the mean of fan-in and fan-out in Song et al.'s code
        nn.init.xavier_uniform_(network.out.weight, math.sqrt(network.output_init), generator)
    else:
        nn.init.zeros_(network.out.weight)
