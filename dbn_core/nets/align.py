"""Align a network with another: the same function, its channels in the order in which they resemble the other's.

Two networks trained apart hold like features in unlike channels, and a curve between their parameters starts with that
handicap.  Channels are matched by their activations (Yun et al., 2023): correlate the two networks' channels
over images and pixels, and solve a linear assignment on 1.01 - correlation.

A residual network has two kinds of channel orders.  The channels *inside* a block (after ``norm1`` and activation) are
that block's own.  The residual *stream* is shared by all blocks that an identity shortcut joins, so these blocks must
agree on one order, found from the sum of their correlations.  A shortcut that is a convolution starts a new stream.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from dbn_core.data.augment import to_float
from dbn_core.errors import SpecError
from dbn_core.nets.resnet import BasicBlock, Classifier

# Added to the standard deviations, so that a dead channel correlates with nothing instead of dividing by zero.
_EPS = 1e-5
_BATCH = 100


@dataclass(frozen=True)
class Channels:
    """One tensor for each order of channels that a :class:`Classifier` has.

    Attributes:
        streams: for each residual stream, the stem's first.
        inner: for each block, ``block1`` first.
    """

    streams: list[torch.Tensor]
    inner: list[torch.Tensor]


class _Moments:
    """Running first and second moments of two activations, in float64."""

    def __init__(self) -> None:
        self.count, self.sums = 0, [torch.zeros(()) for _ in range(5)]

    def add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Two feature maps [B, C, H, W] of the same images; every pixel is a sample."""
        x, y = (h.double().movedim(1, 0).flatten(1) for h in (a, b))
        new = (x.sum(1), y.sum(1), x.square().sum(1), y.square().sum(1), x @ y.T)
        self.count += x.shape[1]
        self.sums = [old.to(value) + value for old, value in zip(self.sums, new, strict=True)]

    def correlation(self) -> torch.Tensor:
        """[C, C]: mean product of the z-scored channels, rows of the first network and columns of the second."""
        x, y, xx, yy, xy = (value / self.count for value in self.sums)
        std_x, std_y = ((square - mean**2).clamp_min(0).sqrt() + _EPS for mean, square in ((x, xx), (y, yy)))
        return ((xy - torch.outer(x, y)) / torch.outer(std_x, std_y)).cpu()


def stream_of_blocks(network: Classifier) -> list[int]:
    """Number of the residual stream that each block writes to, ``block0`` (the stem) first."""
    streams = [0]
    for block in _residual_blocks(network):
        streams.append(streams[-1] + (not isinstance(block.shortcut, nn.Identity)))
    return streams


@torch.no_grad()
def correlate(network: Classifier, reference: Classifier, images: torch.Tensor) -> Channels:
    """Correlation of the reference's channels (rows) with the network's (columns).

    Args:
        network, reference: of one architecture, on one device, in evaluation mode.
        images: uint8 [N, C, H, W], on any device.

    Returns:
        Matrices [C, C], float64 on the CPU; a stream's is the sum over the blocks that write to it.

    Raises:
        SpecError: the networks differ in shape.
    """
    if [p.shape for p in network.parameters()] != [p.shape for p in reference.parameters()]:
        raise SpecError("Only networks of one architecture can be aligned.")
    outputs = [_Moments() for _ in network.blocks]
    inner = [_Moments() for _ in network.blocks[1:]]
    device = next(network.parameters()).device
    # Both networks walk through their blocks together: only the current feature maps are held.
    for batch in images.split(_BATCH):
        a = b = to_float(batch.to(device))
        a, b = reference.blocks[0](a), network.blocks[0](b)
        outputs[0].add(a, b)
        pairs = zip(_residual_blocks(reference), _residual_blocks(network), strict=True)
        for index, (first, second) in enumerate(pairs):
            inner[index].add(_inside(first, a), _inside(second, b))
            a, b = first(a), second(b)
            outputs[index + 1].add(a, b)
    streams = stream_of_blocks(network)
    found = [moments.correlation() for moments in outputs]
    summed = [
        torch.stack([matrix for matrix, of in zip(found, streams, strict=True) if of == stream]).sum(0)
        for stream in range(streams[-1] + 1)
    ]
    return Channels(summed, [moments.correlation() for moments in inner])


def match(correlation: torch.Tensor) -> torch.Tensor:
    """The assignment of greatest total correlation: entry i is the column that belongs to row i, int64 [C]."""
    _, columns = linear_sum_assignment((1.01 - correlation).numpy())
    return torch.from_numpy(columns)


def permute(network: Classifier, orders: Channels) -> Classifier:
    """A copy of the network with its channels in other orders; it computes the same function.

    Args:
        orders: permutations, int64 [C]: entry i names the channel of ``network`` that becomes channel i.
    """
    result = copy.deepcopy(network)
    streams = stream_of_blocks(result)
    stem = list(result.blocks[0].children())  # normalisation, convolution, norm, activation, perhaps pooling
    _reorder_(stem[1], stem[2], orders.streams[0])
    for index, block in enumerate(_residual_blocks(result)):
        before, after = (orders.streams[streams[position]] for position in (index, index + 1))
        _reorder_(block.conv1, block.norm1, orders.inner[index], before)
        _reorder_(block.conv2, block.norm2, after, orders.inner[index])
        if not isinstance(block.shortcut, nn.Identity):
            convolution, norm = block.shortcut.children()
            _reorder_(convolution, norm, after, before)
    weight = result.head.linear.weight
    with torch.no_grad():
        weight.copy_(weight[:, orders.streams[-1].to(weight.device)])
    return result


def align(network: Classifier, reference: Classifier, images: torch.Tensor) -> Classifier:
    """A copy of ``network`` that computes the same function, with its channels matched to the reference's.

    Args:
        network, reference: of one architecture, on one device, in evaluation mode.
        images: un-augmented training images, uint8 [N, C, H, W]; the paper takes 10,000.

    Raises:
        SpecError: the networks differ in shape.
    """
    found = correlate(network, reference, images)
    return permute(network, Channels([match(m) for m in found.streams], [match(m) for m in found.inner]))


def _residual_blocks(network: Classifier) -> Sequence[BasicBlock]:
    return [block for block in network.blocks if isinstance(block, BasicBlock)]


def _inside(block: BasicBlock, x: torch.Tensor) -> torch.Tensor:
    return block.norm1(block.conv1(x))


@torch.no_grad()
def _reorder_(
    convolution: nn.Module, norm: nn.Module, outputs: torch.Tensor, inputs: torch.Tensor | None = None
) -> None:
    """Reorder the output channels of a convolution and its norm, and the input channels it reads."""
    for module in (convolution, norm):
        for tensor in module.state_dict().values():  # all but BatchNorm's batch counter start with the channel axis
            if tensor.ndim:
                tensor.copy_(tensor[outputs.to(tensor.device)])
    if inputs is not None:
        weight = convolution.weight
        assert isinstance(weight, torch.Tensor)
        weight.copy_(weight[:, inputs.to(weight.device)])
