"""Quadratic Bezier curves between two networks (Garipov et al., 2018; Yun et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.func import functional_call


def bezier(start: torch.Tensor, control: torch.Tensor, end: torch.Tensor, r: float) -> torch.Tensor:
    """theta(r) = (1-r)^2 start + 2 r (1-r) control + r^2 end."""
    return (1 - r) ** 2 * start + 2 * r * (1 - r) * control + r**2 * end


class BezierCurve(nn.Module):
    """A network whose every parameter lies on a curve; the ends are frozen, the control point is trained.

    Args:
        start, end: the two trained networks of equal architecture.
        control: a *freshly initialised* network of the same architecture (not the midpoint of the ends).
    """

    def __init__(self, start: nn.Module, control: nn.Module, end: nn.Module) -> None:
        super().__init__()
        self.control = control
        # Not registered as submodules: the ends are not this module's to train, move or save.
        self._start = {name: value.detach() for name, value in start.named_parameters()}
        self._end = {name: value.detach() for name, value in end.named_parameters()}

    def parameters_at(self, r: float) -> dict[str, torch.Tensor]:
        """All parameters of the network at position r in [0, 1]."""
        control = dict(self.control.named_parameters())
        return {name: bezier(self._start[name], control[name], self._end[name], r) for name in control}

    def forward(self, x: torch.Tensor, r: float = 0.5) -> torch.Tensor:
        """Logits [B, K] of the network at position r; BatchNorm statistics are the control network's own."""
        return functional_call(self.control, self.parameters_at(r), (x,))

    def state_at(self, r: float) -> Mapping[str, torch.Tensor]:
        """State dict of the network at r, to load into a network of the same architecture.

        Buffers are the control network's: BatchNorm statistics gathered along the whole curve fit no single position
        of it, and are to be computed anew before the network at r is evaluated.
        """
        return {**self.control.state_dict(), **{name: value.detach() for name, value in self.parameters_at(r).items()}}
