"""Augmentation of a whole batch at once, on its device, driven by an explicit generator.

Numbers are drawn on the device of the generator and moved to that of the images.  With a CPU generator, every device
therefore sees the same crops, flips and mixtures.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dbn_core.data.dataset import Split


def to_float(images: Tensor) -> Tensor:
    """Uint8 images to float32 in [0, 1], same shape; float images are returned unchanged."""
    return images if images.is_floating_point() else images.to(torch.float32).div_(255)


def draw_offsets(count: int, pad: int, generator: torch.Generator) -> Tensor:
    """Offsets of ``count`` random crops: int64 [2, count], rows and columns, uniform on 0 ... 2 pad."""
    return torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator, device=generator.device)[..., 0]


def crop(images: Tensor, pad: int, offsets: Tensor) -> Tensor:
    """Zero-pad images [B, C, H, W] by ``pad`` pixels on each side and cut their size out at ``offsets`` [2, B]."""
    batch, channels, height, width = images.shape
    device = images.device
    offsets = offsets.to(device)[..., None]
    rows = (offsets[0] + torch.arange(height, device=device)).view(batch, 1, height, 1)
    columns = (offsets[1] + torch.arange(width, device=device)).view(batch, 1, 1, width)
    example = torch.arange(batch, device=device).view(batch, 1, 1, 1)
    channel = torch.arange(channels, device=device).view(1, channels, 1, 1)
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    return padded[example, channel, rows, columns]


def draw_flips(count: int, generator: torch.Generator) -> Tensor:
    """Which of ``count`` examples are mirrored, each with probability one half: bool [count]."""
    return torch.rand(count, generator=generator, device=generator.device) < 0.5


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Flip those images of [B, C, H, W] left to right for which bool [B] is true."""
    return torch.where(mirrored.to(images.device).view(-1, 1, 1, 1), images.flip(-1), images)


def mixup_coefficients(batch_size: int, alpha: float, generator: torch.Generator, per_example: bool) -> Tensor:
    """Draw the lambda of mixup from Beta(alpha, alpha) (Zhang et al., 2018, arXiv 1710.09412).

    It inverts the distribution function, because torch's Beta samples from the global generator only.

    Args:
        batch_size: B.
        alpha: both parameters of the Beta distribution; 0 means no mixup and draws nothing.
        generator: source of the uniform numbers.
        per_example: whether each example has its own lambda; otherwise the whole batch has one.

    Returns:
        float32 [B] on the CPU, in [0, 1].
    """
    from scipy.special import betaincinv

    if alpha == 0:
        return torch.zeros(batch_size)
    draws = batch_size if per_example else 1
    uniform = torch.rand(draws, dtype=torch.float64, generator=generator, device=generator.device).cpu()
    lam = torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy())).to(torch.float32)
    return lam.expand(batch_size).contiguous()


def mix_images(own: Tensor, other: Tensor, lam: Tensor) -> Tensor:
    """``x <- (1 - lambda) own + lambda other``, float [B, C, H, W]; ``lam`` is [B], on any device."""
    weight = lam.to(device=own.device, dtype=own.dtype).view(-1, 1, 1, 1)
    return (1 - weight) * own + weight * other


def batches(split: Split, batch_size: int, generator: torch.Generator, drop_last: bool) -> Iterator[Tensor]:
    """One epoch: a random permutation of the examples, cut into batches.

    The permutation is drawn at the call and not at the first batch, so that the order of draws does not depend on
    when the iterator is used.

    Args:
        split: only its length and its device are used.
        batch_size: examples in a batch.
        generator: source of the permutation.
        drop_last: whether to leave out a last batch that is not full.

    Returns:
        Iterator of int64 index tensors, on the device of the images.
    """
    order = torch.randperm(len(split), generator=generator, device=generator.device).to(split.images.device)
    if drop_last:
        order = order[: len(order) // batch_size * batch_size]
    return iter(order.split(batch_size))
