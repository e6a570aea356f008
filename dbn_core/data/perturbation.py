"""Output diversified sampling: move images in the direction in which a network's prediction changes fast."""

from __future__ import annotations

import torch
from torch import nn


def diversified(
    images: torch.Tensor, network: nn.Module, weights: torch.Tensor, step: float, tau: float
) -> torch.Tensor:
    """``x + step max_k p_k g / RMS(g)``, ``p = softmax(network(x) / tau)``, ``g`` the gradient of ``w . p`` in x.

    Tashiro et al., 2020, arXiv 2003.06878; scaled by the confidence as in Nam et al., 2021, arXiv 2110.14149.

    Args:
        images: float [B, C, H, W] in [0, 1]; results may leave that range by amounts of the size of ``step``.
        network: images to logits [B, K], each example independent of the others.
        weights: w, float [B, K], on any device.
        step: root mean square change of a pixel where the network is certain.

    Returns:
        [B, C, H, W], without a gradient; an image whose gradient is zero is unchanged.
    """
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        probabilities = (network(x) / tau).softmax(-1)
        (gradient,) = torch.autograd.grad((weights.to(probabilities) * probabilities).sum(), x)
    # Gradients of confident networks are so small that their squares underflow.
    smallest = torch.finfo(gradient.dtype).tiny
    gradient = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(smallest)
    length = gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(smallest)
    scale = step * probabilities.detach().amax(-1)
    return (x + scale[:, None, None, None] * gradient / length).detach()
