"""Filter Response Normalisation with its thresholded linear unit (Singh and Krishnan, 2020), and swish after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dbn_core.nets.precision import full_precision


class FRN(nn.Module):
    """FRN with threshold: ``max(gamma * x / sqrt(mean_hw(x^2) + eps) + beta, tau)``, 3 parameters a channel.

    With ``swish`` the module ends in ``z * sigmoid(z)``, where z is the normalised map plus the residual.
    Training then goes through :class:`_FRNSwish`, which reads and writes the map half as often.

    Args:
        channels: C of the input [B, C, H, W].
        eps: fixed, as in the DBN and Bridge Network code.
        swish: whether swish follows.
    """

    def __init__(self, channels: int, eps: float = 1e-6, swish: bool = False) -> None:
        super().__init__()
        self.eps, self.swish = eps, swish
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))
        self.tau = nn.Parameter(torch.zeros(channels, 1, 1))

    def reset(self, generator: torch.Generator) -> None:
        """gamma = 1, beta = 0, tau = 0; nothing is random."""
        nn.init.ones_(self.gamma)
        nn.init.zeros_(self.beta)
        nn.init.zeros_(self.tau)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """Normalise over the spatial axes of each example and channel; float32 under autocast too.

        Args:
            x: [B, C, H, W].
            residual: the same shape, added before swish.
        """
        x = full_precision(x)
        if self.swish and torch.is_grad_enabled():
            return _FRNSwish.apply(x, self.gamma, self.beta, self.tau, self.eps, residual)
        scale = self.gamma * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + self.eps)
        # max(y, tau) = relu(y - tau) + tau; relu's backward is several times cheaper on CPU than that of maximum.
        y = F.relu(torch.addcmul(self.beta - self.tau, x, scale)) + self.tau
        if residual is not None:
            y = y + residual
        return F.silu(y) if self.swish else y


class _FRNSwish(torch.autograd.Function):
    """FRN, a residual and swish with a backward pass of its own: what it can make from ``x`` is not kept.

    With ``r = (mean_hw(x^2) + eps)^(-1/2)``, ``u = gamma r x + beta - tau``, ``z = relu(u) + tau + residual``,
    ``q = sigmoid(z)`` and ``y = z q``, a gradient g of y gives

        dz = g (q + y (1 - q)),   du = dz [u > 0],   dbeta = sum du,   dtau = sum dz - sum du,
        dgamma = sum r c   and   dx = gamma r (du - r^2 c x / HW),   where   c = sum_hw du x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        tau: torch.Tensor,
        eps: float,
        residual: torch.Tensor | None,
    ) -> torch.Tensor:
        r = x.square().mean((2, 3), keepdim=True).add_(eps).rsqrt_()
        z = torch.addcmul(beta - tau, x, gamma * r).relu_().add_(tau)
        if residual is not None:
            z.add_(residual)
        q = z.sigmoid()
        y = z.mul_(q)
        ctx.save_for_backward(x, r, q, y, gamma, beta, tau)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, r, q, y, gamma, beta, tau = ctx.saved_tensors
        scale = gamma * r
        dz = torch.addcmul(y, y, q, value=-1).add_(q).mul_(g)
        u = torch.addcmul(beta - tau, x, scale)
        du = torch.ops.aten.threshold_backward(dz, u, 0)
        dbeta = du.sum((0, 2, 3))[:, None, None]
        dtau = dz.sum((0, 2, 3))[:, None, None] - dbeta
        c = torch.mul(du, x, out=u).sum((2, 3), keepdim=True)
        dx = du.mul_(scale).addcmul_(x, scale * r.square() * c, value=-1 / (x.shape[2] * x.shape[3]))
        return dx, (r * c).sum(0), dbeta, dtau, None, dz if ctx.needs_input_grad[5] else None
