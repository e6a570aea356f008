"""Several members in one network: rank-one factors, masks, groups, and several images at once.

Each network maps images [B, C, H, W] to logits [M, B, K] of M members.  A member-major tensor [M B, ...] has the rows
of member m from m B to (m + 1) B - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dbn_core.errors import SpecError
from dbn_core.nets.init import initialise_, truncated_normal_
from dbn_core.nets.norms import FRN
from dbn_core.nets.precision import full_precision
from dbn_core.nets.resnet import BasicBlock, Classifier, SameConv2d


class MemberMajor(nn.Module):
    """A network whose layers treat the rows of each member differently; the input is repeated for all members."""

    def __init__(self, network: nn.Module, members: int) -> None:
        super().__init__()
        self.network, self.members = network, members

    def forward(self, images: torch.Tensor, pieces: bool = False) -> torch.Tensor:
        """[B, C, H, W] to [M, B, K]; with ``pieces`` each member sees its M-th of the batch alone, [M, B / M, K]."""
        x = images if pieces else images.repeat(self.members, 1, 1, 1)
        logits: torch.Tensor = self.network(x).unflatten(0, (self.members, -1))
        return logits


def _rows(vectors: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Vectors [M, C] for the rows of member-major ``x`` [M B, C, ...], as something to multiply with."""
    rows = vectors.repeat_interleave(len(x) // len(vectors), 0)
    return rows.view(*rows.shape, *[1] * (x.ndim - 2))


class RankOne(nn.Module):
    """``s_m * layer(r_m * x) + b_m``: weights ``W * s_m r_m^T`` of member m (BatchEnsemble)."""

    def __init__(self, layer: Any, members: int) -> None:
        super().__init__()
        outputs, inputs = layer.weight.shape[:2]
        self.layer = layer
        self.r, self.s = nn.Parameter(torch.ones(members, inputs)), nn.Parameter(torch.ones(members, outputs))
        self.b = None if layer.bias is None else nn.Parameter(layer.bias.detach().repeat(members, 1))
        layer.bias = None

    def reset(self, generator: torch.Generator) -> None:
        """The layer as always, r and s from N(1, 1/4), b zero."""
        initialise_(self.layer, generator)
        with torch.no_grad():
            for fast in (self.r, self.s):
                fast.copy_(1 + 0.5 * torch.randn(fast.shape, generator=generator))
            if self.b is not None:
                self.b.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Member-major [M B, inputs, ...] to [M B, outputs, ...]."""
        y = self.layer(x * _rows(self.r, x))
        y = y * _rows(self.s, y)
        return full_precision(y if self.b is None else y + _rows(self.b, y))


def batch_ensemble(network: nn.Module, members: int) -> MemberMajor:
    """``network`` with rank-one factors in every convolution and linear layer."""
    _replace(network, lambda layer: RankOne(layer, members) if isinstance(layer, nn.Conv2d | nn.Linear) else None)
    return MemberMajor(network, members)


def _replace(module: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> None:
    for name, child in list(module.named_children()):
        new = make(child)
        if new is None:
            _replace(child, make)
        else:
            setattr(module, name, new)


class Masked(nn.Module):
    """A convolution that member m gives only the channels of mask m, [M, C] of zeros and ones (Masksembles)."""

    masks: torch.Tensor

    def __init__(self, layer: Any, members: int, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale
        self.register_buffer("masks", torch.ones(members, layer.in_channels))

    def reset(self, generator: torch.Generator) -> None:
        """The layer as always, and masks of its own."""
        initialise_(self.layer, generator)
        members, channels = self.masks.shape
        self.masks.copy_(draw_masks(members, channels, self.scale, generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Member-major [M B, C, H, W]."""
        output: torch.Tensor = self.layer(x * _rows(self.masks, x))
        return output


def draw_masks(members: int, channels: int, scale: float, generator: torch.Generator) -> torch.Tensor:
    """Masks [M, C] with equally many ones each, which together use every channel; two overlap by 1 / (2 scale - 1).

    Each takes ``m = C / (s (1 - (1 - 1/s)^M))`` of ``m s`` places at random; places that none takes are left out, and
    all is drawn anew until C are left.

    Raises:
        SpecError: no masks are found: there are too few channels.
    """
    ones = int(channels / (scale * (1 - (1 - 1 / scale) ** members)))
    ones += int(ones * scale) < channels  # rounded down too far: fewer places than channels
    places = int(ones * scale)
    for _ in range(10_000):
        masks = torch.zeros(members, places)
        for mask in masks:
            mask[torch.randperm(places, generator=generator)[:ones]] = 1
        used = masks[:, masks.any(0)]
        if used.shape[1] == channels:
            return used
    raise SpecError(
        f"There are no {members} masks of scale {scale:g} over {channels} channels: widen the network or lower scale."
    )


def masksemble(network: Classifier, members: int, scale: float) -> MemberMajor:
    """``network`` with masks before both convolutions of every block."""
    for block in network.blocks:
        if isinstance(block, BasicBlock):
            for name in ("conv1", "conv2"):
                setattr(block, name, Masked(getattr(block, name), members, scale))
    return MemberMajor(network, members)


class PackedNetwork(nn.Module):
    """M networks of ``alpha / M`` times the width as groups of one (Packed-Ensembles).

    All widths are multiplied by alpha; every convolution but the first has M gamma groups, and each member has a head
    of its own on its share of the features.

    Args:
        network: of the suite, of which nothing but the layout is used.
        members: M.
        alpha: see above.
        gamma: groups within a member.

    Raises:
        SpecError: a width times alpha is no multiple of M gamma.
    """

    def __init__(self, network: Classifier, members: int, alpha: float, gamma: int) -> None:
        super().__init__()
        self.members, groups = members, members * gamma
        stem = next(layer for layer in network.modules() if isinstance(layer, SameConv2d))

        def wide(channels: int) -> int:
            if (channels * alpha) % groups:
                raise SpecError(
                    f"{channels} channels times alpha = {alpha:g} do not divide into {members} members times gamma = "
                    f"{gamma} groups: choose another alpha, gamma or size."
                )
            return int(channels * alpha)

        def make(layer: Any) -> nn.Module | None:
            if isinstance(layer, SameConv2d):
                first = layer is stem
                return SameConv2d(
                    layer.in_channels if first else wide(layer.in_channels),
                    wide(layer.out_channels),
                    layer.kernel_size,  # type: ignore[arg-type]
                    layer.stride,  # type: ignore[arg-type]
                    groups=1 if first else groups,
                    bias=layer.bias is not None,
                )
            if isinstance(layer, nn.BatchNorm2d):  # with ReLU or without
                return type(layer)(wide(layer.num_features))
            if isinstance(layer, FRN):
                return FRN(wide(len(layer.gamma)), layer.eps, layer.swish)
            return None

        self.blocks, linear = network.blocks, network.head.linear
        _replace(self.blocks, make)
        self.weight = nn.Parameter(torch.zeros(members, linear.out_features, wide(linear.in_features) // members))
        self.bias = nn.Parameter(torch.zeros(members, 1, linear.out_features))

    def reset(self, generator: torch.Generator) -> None:
        """Each layer and each head as in a network of its own."""
        initialise_(self.blocks, generator)
        nn.init.zeros_(self.bias)
        for head in self.weight.detach():
            truncated_normal_(head, 2.0, generator)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [M, B, K]."""
        h = images
        for block in self.blocks:
            h = block(h)
        h = h.mean((2, 3)).unflatten(1, (self.members, -1))
        return full_precision(torch.einsum("bmd,mkd->mbk", h, self.weight)) + self.bias


class MultiInput(nn.Module):
    """A network that reads M images, stacked along the channels, and answers for each (MIMO).

    Args:
        network: [B, M C, H, W] to [B, M K].
        members: M.
        channels: C.
    """

    def __init__(self, network: nn.Module, members: int, channels: int) -> None:
        super().__init__()
        self.network, self.members, self.channels = network, members, channels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, M C, H, W], or [B, C, H, W] for all members alike, to [M, B, K]."""
        x = images.repeat(1, self.members, 1, 1) if images.shape[1] == self.channels else images
        logits: torch.Tensor = self.network(x).unflatten(1, (self.members, -1)).transpose(0, 1)
        return logits


def shuffled_rows(examples: int, members: int, repeat: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Which images each of M members sees in a batch of MIMO: M permutations of all of them, ``repeat`` times each."""
    rows = torch.arange(examples).repeat(repeat)
    rows = rows[torch.randperm(len(rows), generator=generator)]
    return [rows[torch.randperm(len(rows), generator=generator)] for _ in range(members)]


class MemberTerms(nn.Module):
    """Log-probabilities [M, B, K] of a network of members."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [M, B, K]."""
        terms: torch.Tensor = self.network(images).log_softmax(-1)
        return terms
