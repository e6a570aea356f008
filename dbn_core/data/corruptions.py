"""Corruptions of test images at five levels, computed on the fly (Hendrycks and Dietterich, 2019, arXiv 1903.12261).

Each takes uint8 images [N, C, H, W] and gives such images.  The constants of each level are those by which the authors
made CIFAR-10-C (github.com/hendrycks/robustness, ``make_cifar_c.py``): in pixels, for images of 32x32, and applied to
other sizes as they are.  Results are rounded to the next level of grey, where the authors cut off.

A further corruption is a function with the arguments of these, and an entry of :data:`CORRUPTIONS`.  Imports no torch,
so that suites can be checked without it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from dbn_core.errors import DataError, SpecError, did_you_mean
from dbn_core.rng import generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LEVELS = (1, 2, 3, 4, 5)
NOISE_STD = (0.04, 0.06, 0.08, 0.09, 0.10)  # of intensities in [0, 1]
DEFOCUS = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))  # radius of the disk, sigma of its edge; pixels
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # what is left of the distance to the mean
JPEG_QUALITY = (80, 65, 58, 50, 40)


def gaussian_noise(images: Tensor, level: int, draws: Iterable[torch.Generator]) -> Tensor:
    """``x + c e`` with standard normal ``e`` for each pixel and channel, clipped."""
    import torch

    noise = torch.stack([torch.randn(images.shape[1:], generator=draw) for draw in draws])
    return _to_uint8(images / 255 + NOISE_STD[level - 1] * noise)


def defocus_blur(images: Tensor, level: int, draws: Iterable[torch.Generator]) -> Tensor:
    """Convolution with a disk whose edge is smoothed; images are mirrored about their outermost pixels.

    Raises:
        DataError: images of fewer than 3x3 pixels, which have no room for the kernel.
    """
    from torch.nn import functional as F

    if min(images.shape[2:]) < 3:
        raise DataError(
            f"defocus_blur needs images of 3x3 pixels or more, not {images.shape[2]}x{images.shape[3]}: take it out."
        )
    channels = images.shape[1]
    kernel = defocus_kernel(*DEFOCUS[level - 1]).expand(channels, 1, 5, 5)
    return _to_uint8(F.conv2d(F.pad(images / 255, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels))


def defocus_kernel(radius: float, sigma: float) -> Tensor:
    """The pixels with centres in a disk of ``radius`` < 2, weighted alike and blurred by 3x3 Gaussian taps; [5, 5].

    Sums to one.
    """
    import torch
    from torch.nn import functional as F

    at = torch.arange(-2.0, 3.0)
    disk = (at[:, None] ** 2 + at**2 <= radius**2).float()
    taps = torch.exp(-(at[1:4] ** 2) / (2 * sigma**2))
    edge = torch.outer(taps, taps) / taps.sum() ** 2
    return F.conv2d((disk / disk.sum())[None, None], edge[None, None], padding=1)[0, 0]


def contrast(images: Tensor, level: int, draws: Iterable[torch.Generator]) -> Tensor:
    """``mean + c (x - mean)`` with the mean of each image and channel."""
    x = images / 255
    mean = x.mean((2, 3), keepdim=True)
    return _to_uint8(mean + CONTRAST[level - 1] * (x - mean))


def jpeg(images: Tensor, level: int, draws: Iterable[torch.Generator]) -> Tensor:
    """Written as JPEG by Pillow, and read again.

    Raises:
        DataError: images that are neither grey nor RGB.
    """
    import numpy as np
    import torch
    from PIL import Image

    if images.shape[1] not in (1, 3):
        raise DataError(f"jpeg needs images of 1 or 3 channels, not {images.shape[1]}: take it out.")
    pixels = images.permute(0, 2, 3, 1).numpy()
    read = np.empty_like(pixels)
    for index, image in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if images.shape[1] == 1 else image).save(
            file, "JPEG", quality=JPEG_QUALITY[level - 1]
        )
        read[index] = np.asarray(Image.open(file)).reshape(image.shape)
    return torch.from_numpy(read).permute(0, 3, 1, 2).contiguous()


Corruption: TypeAlias = "Callable[[Tensor, int, Iterable[torch.Generator]], Tensor]"
CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "defocus_blur": defocus_blur,
    "contrast": contrast,
    "jpeg": jpeg,
}


def corrupt(images: Tensor, name: str, level: int, ids: Sequence[int] | None = None, **axes: Any) -> Tensor:
    """Images under a corruption, by its name.

    Each image has a generator of its own, seeded by ``axes``, the corruption and the image's number: what comes of it
    does not depend on the others.  The level is no axis, so that more noise is the same noise, larger.

    Args:
        images: uint8 [N, C, H, W].
        level: 1 to 5.
        ids: number of each image, by which its draws are named; None: 0 to N - 1.

    Raises:
        SpecError: no such corruption or level.
        DataError: images to which the corruption cannot be applied.
    """
    import torch

    if name not in CORRUPTIONS:
        raise SpecError(f"Unknown corruption '{name}'{did_you_mean(name, CORRUPTIONS)}.")
    if level not in LEVELS:
        raise SpecError(f"Corruptions have levels 1 to 5, not {level}.")
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise DataError(
            f"Images are corrupted as uint8 [N, C, H, W], not as {images.dtype} {list(images.shape)}: convert them."
        )
    images, ids = images.cpu(), range(len(images)) if ids is None else ids
    if not len(images):
        return images
    return CORRUPTIONS[name](images, level, (generator(**axes, corruption=name, example=int(i)) for i in ids))


def _to_uint8(x: Tensor) -> Tensor:
    import torch

    return x.clamp(0, 1).mul(255).round().to(torch.uint8)
