"""ResNets for small images, as the DBN and Bridge Network papers use them, and their split at a named block.

CIFAR ResNet-(6n+2): a stem of 16 channels that is *not* widened, three stages of n basic blocks.  ResNet-34: stages of
3, 4, 6, 3 blocks.  Blocks are counted from 1 through the whole network, so ``block12`` of ResNet-32 ends in the
middle of stage 3; ``block0`` is the stem.

With pre-activation (wide residual networks have it) a block adds what it computes to an unnormalised stream, and the
last block ends in the norm and activation that follow it, so that all blocks are maps to maps and the head is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from dbn_core.nets.network import Network, SplitTap
from dbn_core.nets.norms import FRN
from dbn_core.nets.precision import full_precision
from dbn_core.nets.spec import NetworkSpec, block_index, block_plan


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" padding: at stride 2 and even size, a row more at the bottom and right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad, then convolve."""
        (kh, kw), (sh, sw) = self.kernel_size, self.stride
        if kh == kw == 1:
            # The same numbers, and on CPUs without AVX-512 the only safe way: torch 2.14's gradient of a strided 1x1
            # convolution writes outside its memory there, for channels_last maps of 2, 4 or 6 channels.
            return F.conv2d(x[:, :, ::sh, ::sw], self.weight, self.bias, groups=self.groups)
        height = max((-(-x.shape[2] // sh) - 1) * sh + kh - x.shape[2], 0)
        width = max((-(-x.shape[3] // sw) - 1) * sw + kw - x.shape[3], 0)
        if height % 2 == 0 and width % 2 == 0:
            padding = height // 2, width // 2
            return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def norm_layer(kind: str, channels: int) -> nn.Module:
    """FRN or BatchNorm; 3 or 2 parameters a channel."""
    return FRN(channels) if kind == "frn" else nn.BatchNorm2d(channels)


class ResidualReLU(nn.Module):
    """A residual and ReLU, in place: what is left of :class:`BatchNormReLU` once a convolution has its BatchNorm."""

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """[B, C, H, W]; ``residual`` has the same shape and is added before the ReLU."""
        return F.relu_(x if residual is None else x.add_(residual))


class BatchNormReLU(nn.BatchNorm2d):
    """BatchNorm, a residual and ReLU; what follows the normalisation works in place."""

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """[B, C, H, W]; ``residual`` has the same shape and is added before the ReLU."""
        y = super().forward(x)
        return F.relu_(y if residual is None else y.add_(residual))


def norm_activation(kind: str, channels: int) -> nn.Module:
    """FRN and swish, or BatchNorm and ReLU: the two families of the papers."""
    return FRN(channels, swish=True) if kind == "frn" else BatchNormReLU(channels)


class BasicBlock(nn.Module):
    """conv3x3, norm, activation, conv3x3, norm, plus shortcut (1x1 convolution and norm where shapes differ)."""

    def __init__(self, in_channels: int, channels: int, stride: int, norm: str, bias: bool) -> None:
        super().__init__()
        self.conv1 = SameConv2d(in_channels, channels, 3, stride, bias=bias)
        self.norm1 = norm_activation(norm, channels)
        self.conv2 = SameConv2d(channels, channels, 3, 1, bias=bias)
        self.norm2 = norm_activation(norm, channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels or stride != 1:
            self.shortcut = nn.Sequential(
                SameConv2d(in_channels, channels, 1, stride, bias=bias), norm_layer(norm, channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, in, H, W] to [B, out, H/stride, W/stride]."""
        h = self.norm1(self.conv1(x))
        return self.norm2(self.conv2(h), self.shortcut(x))


class PreactivationBlock(BasicBlock):
    """norm, activation, conv3x3, norm, activation, conv3x3, plus the input (He et al., 2016, arXiv 1603.05027).

    Where shapes differ, a 1x1 convolution of the activated input takes the place of the input.

    Args:
        last: whether norm and activation follow the sum, after which comes the head.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, norm: str, bias: bool, last: bool = False) -> None:
        super().__init__(in_channels, channels, stride, norm, bias)
        self.norm1 = norm_activation(norm, in_channels)
        self.projects = isinstance(self.shortcut, nn.Sequential)
        if self.projects:
            self.shortcut = SameConv2d(in_channels, channels, 1, stride, bias=bias)
        self.out_norm = norm_activation(norm, channels) if last else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, in, H, W] to [B, out, H/stride, W/stride]."""
        activated = self.norm1(x)
        h = self.conv2(self.norm2(self.conv1(activated)))
        return self.out_norm(h + self.shortcut(activated if self.projects else x))


def residual_block(spec: NetworkSpec, in_channels: int, channels: int, stride: int, last: bool = False) -> BasicBlock:
    """A block of the form that the spec says; ``last``: the head follows."""
    if spec.preactivation:
        return PreactivationBlock(in_channels, channels, stride, spec.norm, spec.bias, last)
    return BasicBlock(in_channels, channels, stride, spec.norm, spec.bias)


class Normalise(nn.Module):
    """Images in [0, 1] to zero mean and unit scale, inside the network as in the DBN code."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(x - mean) / std per channel."""
        return (x - self.mean) / self.std


class Classifier(Network):
    """A ResNet as a chain: ``block0`` (normalisation and stem), ``block1`` ... ``blockB``, ``head`` (pool and linear).

    Args:
        spec: family, width and norm.
        classes: number of classes K.
        in_channels: image channels.
        mean: per channel, for images in [0, 1].
        std: per channel, likewise.
    """

    def __init__(
        self, spec: NetworkSpec, classes: int, in_channels: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.spec: NetworkSpec = spec
        self.classes = classes
        kernel, stride = {"3x3": (3, 1), "3x3/2": (3, 2), "7x7": (7, 2)}[spec.stem]
        stem: list[nn.Module] = [
            Normalise(mean, std),
            SameConv2d(in_channels, spec.channels, kernel, stride, bias=spec.bias),
        ]
        if not spec.preactivation:
            stem.append(norm_activation(spec.norm, spec.channels))
        if spec.stem == "7x7":
            stem.append(nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.ModuleList([nn.Sequential(*stem)])
        in_block, plan = spec.channels, block_plan(spec)
        for index, (channels, stride) in enumerate(plan, 1):
            self.blocks.append(residual_block(spec, in_block, channels, stride, last=index == len(plan)))
            in_block = channels
        self.head = Head(in_block, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images, float [B, C, H, W] in [0, 1], to logits [B, K]."""
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def tap(self, at: str) -> SplitTap:
        """Features after block ``at`` and logits; raises :class:`SpecError` when there is no such block."""
        return SplitTap(*self.split(at))

    def last_layer(self) -> tuple[nn.Sequential, nn.Linear]:
        """Blocks and pooling, and the linear layer of the head."""
        return nn.Sequential(*self.blocks, GlobalPooling()), self.head.linear

    def split(self, at: str) -> tuple[nn.Sequential, nn.Sequential]:
        """Features up to and including block ``at`` and the rest as a head; both share this network's weights.

        ``head(features(x))`` equals ``self(x)``.

        Raises:
            SpecError: there is no such block.
        """
        index = block_index(at, len(self.blocks) - 1)
        return nn.Sequential(*self.blocks[: index + 1]), nn.Sequential(*self.blocks[index + 1 :], self.head)


class GlobalPooling(nn.Module):
    """Means of feature maps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, C]."""
        return x.mean((2, 3))


class Head(nn.Module):
    """Global average pooling and a linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, K], which is float32 under autocast too: what follows are losses and targets."""
        return full_precision(self.linear(x.mean((2, 3))))
