"""The bridge of a Bridge Network: a fresh, slim copy of the last residual blocks (Yun et al., 2023, section 7.3)."""

from __future__ import annotations

import torch
from torch import nn

from dbn_core.nets.resnet import BasicBlock, Head, block_index, block_plan
from dbn_core.nets.spec import NetworkSpec


class BridgeHead(nn.Module):
    """The blocks after ``at``, every width divided by ``slim``, pooling and a classifier.

    Args:
        spec: the base network.
        classes: K.
        at: the block whose output is the input (``block12`` of ResNet-32: the bridge is a copy of blocks 13 to 15).
        slim: 1 gives the paper's medium bridge, 2 the small one.
        sources: 1 for type I (features of one end), 2 for type II (both ends, concatenated).

    Raises:
        SpecError: there is no such block, or none after it.
    """

    def __init__(self, spec: NetworkSpec, classes: int, at: str, slim: float = 1.0, sources: int = 1) -> None:
        super().__init__()
        plan = block_plan(spec)
        index = block_index(at, len(plan) - 1)
        channels = (plan[index - 1][0] if index else spec.channels) * sources
        self.blocks = nn.Sequential()
        for width, stride in plan[index:]:
            out = max(1, round(width / slim))
            self.blocks.append(BasicBlock(channels, out, stride, spec.norm, spec.bias))
            channels = out
        self.head = Head(channels, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Feature map [B, C * sources, H, W] to logits [B, K]."""
        return self.head(self.blocks(features))
