"""Augmentation of a whole batch at once, on its device, driven by an explicit generator.

A generator may live on another device than the images: numbers are drawn where it lives and moved.  With a CPU
generator, every device therefore sees the same crops, flips and mixtures.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dbn_core.data.dataset import Split
from dbn_core.errors import SpecError


def to_float(images: Tensor) -> Tensor:
    """Uint8 images to float32 in [0, 1], same shape; what is float already stays as it is."""
    return images if images.is_floating_point() else images.to(torch.float32).div_(255)


def random_crop(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Zero-pad by ``pad`` pixels on each side and cut the old size back out at a random place for each example.

    Args:
        images: [B, C, H, W], any type.
        pad: pixels; 0 returns the images as they are and draws nothing.
        generator: source of the offsets, uniform on 0..2 pad in both directions.

    Returns:
        [B, C, H, W], same type and device.

    Raises:
        SpecError: when ``pad`` is negative.
    """
    if pad < 0:
        raise SpecError(f"The padding of a random crop must be at least 0 pixels, not {pad}.")
    if pad == 0:
        return images
    return crop(images, pad, draw_offsets(len(images), pad, generator))


def draw_offsets(count: int, pad: int, generator: torch.Generator) -> Tensor:
    """Places of ``count`` crops: int64 [2, count], rows and columns, uniform on 0 ... 2 pad."""
    return torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator, device=generator.device)[..., 0]


def crop(images: Tensor, pad: int, offsets: Tensor) -> Tensor:
    """Zero-pad by ``pad`` and cut [B, C, H, W] back out at ``offsets`` [2, B]; see :func:`random_crop`."""
    batch, channels, height, width = images.shape
    device = images.device
    offsets = offsets.to(device)[..., None]
    rows = (offsets[0] + torch.arange(height, device=device)).view(batch, 1, height, 1)
    columns = (offsets[1] + torch.arange(width, device=device)).view(batch, 1, 1, width)
    example = torch.arange(batch, device=device).view(batch, 1, 1, 1)
    channel = torch.arange(channels, device=device).view(1, channels, 1, 1)
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    return padded[example, channel, rows, columns]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each example [C, H, W] of a batch left to right with probability one half."""
    return flip(images, draw_flips(len(images), generator))


def draw_flips(count: int, generator: torch.Generator) -> Tensor:
    """Which of ``count`` examples are mirrored: bool [count], each with probability one half."""
    return torch.rand(count, generator=generator, device=generator.device) < 0.5


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror those of [B, C, H, W] that bool [B] names."""
    return torch.where(mirrored.to(images.device).view(-1, 1, 1, 1), images.flip(-1), images)


def mixup_coefficients(batch_size: int, alpha: float, generator: torch.Generator, per_example: bool) -> Tensor:
    """Draw mixup's lambda ~ Beta(alpha, alpha).

    By the inverse of the distribution function, because torch's Beta samples from the global generator only.

    Args:
        batch_size: B.
        alpha: both parameters of the Beta distribution; 0 means no mixup and draws nothing.
        generator: source of the uniform numbers.
        per_example: one lambda for each example; else one for the whole batch.

    Returns:
        float32 [B] on the CPU, in [0, 1].

    Raises:
        SpecError: when ``alpha`` is negative or not finite.
    """
    from scipy.special import betaincinv

    if not 0 <= alpha < float("inf"):
        raise SpecError(f"The alpha of mixup must be at least 0 and finite, not {alpha}.")
    if alpha == 0:
        return torch.zeros(batch_size)
    draws = batch_size if per_example else 1
    uniform = torch.rand(draws, dtype=torch.float64, generator=generator, device=generator.device).cpu()
    lam = torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy())).to(torch.float32)
    return lam.expand(batch_size).contiguous()


def mix(own: Tensor, other: Tensor, lam: Tensor) -> Tensor:
    """``x <- (1 - lambda) own + lambda other``, float [B, C, H, W]; ``lam`` is [B], on any device."""
    weight = lam.to(device=own.device, dtype=own.dtype).view(-1, 1, 1, 1)
    return (1 - weight) * own + weight * other


def batches(split: Split, batch_size: int, generator: torch.Generator, drop_last: bool) -> Iterator[Tensor]:
    """One epoch: a random permutation of the examples, cut into batches.

    The permutation is drawn at the call, not at the first batch, so that the order of draws does not depend on when
    the iterator is used.

    Args:
        split: its length and its device count.
        batch_size: examples in a batch.
        generator: source of the permutation.
        drop_last: leave out a last batch that is not full.

    Returns:
        Iterator of int64 index tensors, on the device of the images.

    Raises:
        SpecError: when the batch size is below 1, or no full batch exists and ``drop_last`` is set.
    """
    if batch_size < 1:
        raise SpecError(f"A batch size must be at least 1, not {batch_size}.")
    if drop_last and batch_size > len(split):
        raise SpecError(f"A batch size of {batch_size} exceeds the {len(split)} examples: lower it to that at most.")
    order = torch.randperm(len(split), generator=generator, device=generator.device).to(split.images.device)
    if drop_last:
        order = order[: len(order) // batch_size * batch_size]
    return iter(order.split(batch_size))
