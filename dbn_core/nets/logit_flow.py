"""Flow from noise to a member's logits, given an image's features (EDFM; Park et al., ICML 2025).

Logits l, noise z ~ N(0, I) of scale s_n and a time t in [0, 1] give the state ``x_t = t l + (1 - t) s_n z``, whose
velocity is ``u = l - s_n z``.  A network F learns what is left of u after its best linear prediction for logits of
variance s_d^2:

    c_in = (t^2 s_d^2 + (1 - t)^2 s_n^2)^(-1/2),  c_skip = (t s_d^2 - (1 - t) s_n^2) c_in^2,  c_out = s_d s_n c_in
    v(x, h, t) = c_skip x + c_out F(c_in x, h, log(1000 (1 - t)) / 4)

Shapes: states [..., K], features [..., C], times broadcastable to [..., 1].
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from dbn_core.nets.network import Network

_FREQUENCIES = 16
_LAST_TIME = 0.999


class FlowBlock(nn.Module):
    """Layer norm, shifted and scaled by the time, a linear layer and GELU; a gated residual where widths agree."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.time, self.linear = nn.Linear(2 * _FREQUENCIES, 3 * inputs), nn.Linear(inputs, width)
        self.inputs, self.residual = inputs, inputs == width

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """[..., inputs] to [..., width]."""
        shift, scale, gate = F.silu(self.time(embedding)).chunk(3, -1)
        y = F.gelu(self.linear(F.layer_norm(x, (self.inputs,)) * (1 + scale) + shift))
        return x + gate * y if self.residual else y


class LogitFlow(nn.Module):
    """The velocity v, its loss and its sampler.

    Args:
        classes: K.
        channels: C, of the pooled features.
        width: of the four hidden layers.
        noise: s_n.
        data: s_d.
    """

    def __init__(self, classes: int, channels: int, width: int = 256, noise: float = 4.0, data: float = 1.0) -> None:
        super().__init__()
        self.noise, self.data, self.classes = noise, data, classes
        self.blocks = nn.ModuleList(
            [FlowBlock(classes + channels, width), *(FlowBlock(width, width) for _ in range(3))]
        )
        self.out = nn.Linear(width, classes)

    def reset(self, generator: torch.Generator) -> None:
        """Xavier uniform weights, zero biases; what depends on the time is zero."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
                if name.endswith("time"):
                    nn.init.zeros_(module.weight)
                else:
                    nn.init.xavier_uniform_(module.weight, generator=generator)

    def raw(self, x: torch.Tensor, features: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """F, of a scaled state."""
        tau = torch.log(1000 * (1 - t) + 1e-12) / 4
        rates = torch.exp(-math.log(10_000) / _FREQUENCIES * torch.arange(_FREQUENCIES, device=t.device))
        embedding = torch.cat([torch.cos(tau * rates), torch.sin(tau * rates)], -1)
        h = torch.cat([x, features.expand(*x.shape[:-1], -1)], -1)
        for block in self.blocks:
            h = block(h, embedding)
        output: torch.Tensor = self.out(h)
        return output

    def coefficients(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """c_in, c_skip and c_out at t."""
        c_in = (t.square() * self.data**2 + (1 - t).square() * self.noise**2).rsqrt()
        c_skip = (t * self.data**2 - (1 - t) * self.noise**2) * c_in.square()
        return c_in, c_skip, self.data * self.noise * c_in

    def velocity(self, x: torch.Tensor, features: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """v [..., K] at state x [..., K]."""
        c_in, c_skip, c_out = self.coefficients(t)
        return c_skip * x + c_out * self.raw(c_in * x, features, t)

    def loss(self, features: torch.Tensor, logits: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """``sum_k (v - u)^2``, mean over the batch; standard normal ``noise`` and logits [B, K], t [B, 1]."""
        start = self.noise * noise
        state, target = t * logits + (1 - t) * start, logits - start
        return (self.velocity(state, features, t) - target).square().sum(-1).mean()

    def sample(self, features: torch.Tensor, noise: torch.Tensor, intervals: int) -> torch.Tensor:
        """Logits at the end of the flow from standard normal ``noise`` [draws, B, K]; 2 intervals - 1 calls of F.

        The times are ``(1 - 2^-i) / (1 - 2^-n)``; Heun's method on all intervals but the last, Euler's on that.
        """
        grid = (1 - 0.5 ** torch.arange(intervals + 1, device=noise.device)) / (1 - 0.5**intervals)
        x = self.noise * noise
        for i, (t, after) in enumerate(zip(grid[:-1, None], grid[1:, None], strict=True), 1):
            step, slope = after - t, self.velocity(x, features, t)
            if i < intervals:
                slope = (slope + self.velocity(x + step * slope, features, after)) / 2
            x = x + step * slope
        return x


def draw_flow_times(count: int, generator: torch.Generator) -> torch.Tensor:
    """Times [count, 1] of training, with a density proportional to 3^t on [0, 0.999]."""
    uniform = torch.rand(count, 1, generator=generator, dtype=torch.float64)
    return (torch.log1p((3**_LAST_TIME - 1) * uniform) / math.log(3)).float()


class FlowingLogits(nn.Module):
    """A frozen network up to its last layer, and draws of logits by the flow; the features are computed once.

    Args:
        network: its last linear layer is not used.
        flow: conditioned on what that layer reads.
        noise: standard normal starts [draws, K], the same for every image, so that a term is one function of images.
        intervals: see :meth:`LogitFlow.sample`.
    """

    noise: torch.Tensor

    def __init__(self, network: Network, flow: LogitFlow, noise: torch.Tensor, intervals: int) -> None:
        super().__init__()
        self.features, _ = network.last_layer()
        self.flow, self.intervals = flow, intervals
        self.register_buffer("noise", noise)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to log-probabilities [draws, B, K]."""
        h = self.features(images)
        start = self.noise[:, None].expand(-1, h.shape[0], -1)
        return self.flow.sample(h, start, self.intervals).log_softmax(-1)
