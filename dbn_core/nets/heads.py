"""The bridge of a Bridge Network: a fresh copy of the last residual blocks (Yun et al., 2023)."""

from __future__ import annotations

import torch
from torch import nn

from dbn_core.nets.resnet import Head, residual_block
from dbn_core.nets.spec import NetworkSpec, block_index, block_plan


class BridgeHead(nn.Module):
    """The blocks after ``at``, with all channels multiplied by ``width``, then pooling and a classifier.

    Args:
        spec: the base network.
        classes: K.
        at: the block whose output is the input (``block12`` of ResNet-32: the bridge is a copy of blocks 13 to 15).
        width: 1 gives the paper's medium bridge, 0.5 the small one.
        sources: 1 for type I (features of one end), 2 for type II (both ends, concatenated).

    Raises:
        SpecError: there is no such block, or none after it.
    """

    def __init__(self, spec: NetworkSpec, classes: int, at: str, width: float = 1.0, sources: int = 1) -> None:
        super().__init__()
        plan = block_plan(spec)
        index = block_index(at, len(plan) - 1)
        channels = (plan[index - 1][0] if index else spec.channels) * sources
        self.blocks = nn.Sequential()
        for position, (base, stride) in enumerate(plan[index:], index + 1):
            out = max(1, round(base * width))
            self.blocks.append(residual_block(spec, channels, out, stride, last=position == len(plan)))
            channels = out
        self.head = Head(channels, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Feature map [B, C * sources, H, W] to logits [B, K]."""
        return self.head(self.blocks(features))
