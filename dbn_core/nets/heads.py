"""The bridge of a Bridge Network: a fresh copy of the last residual blocks (Yun et al., 2023), and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

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


def matching_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    ends: Sequence[torch.Tensor] = (),
    kind: Literal["kl", "mse"] = "kl",
    repulsion: float = 0.0,
) -> torch.Tensor:
    """``KL(p_target || p_bridge) - rho mean_e KL(p_e || p_bridge)``, batch mean (Yun et al., 2023).

    Args:
        logits, target: [B, K], of the bridge and of the network on the curve.
        ends: logits [B, K] of the base models that the bridge reads: one for type I, two for type II; needed when
            ``repulsion`` is not 0.
        kind: ``mse`` matches by the mean squared error of the logits instead, over batch and classes.
        repulsion: rho; it keeps the bridge from copying a base model.

    Raises:
        ValueError: repulsion without ends.
    """
    if repulsion and not ends:
        raise ValueError("repulsion pushes away from the base models: give their logits")
    log_probs = logits.log_softmax(-1)
    loss = F.mse_loss(logits, target) if kind == "mse" else _kl(target, log_probs)
    if repulsion:
        loss = loss - repulsion * torch.stack([_kl(end, log_probs) for end in ends]).mean()
    return loss


def _kl(logits: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
    return F.kl_div(log_probs, logits.log_softmax(-1), reduction="batchmean", log_target=True)
