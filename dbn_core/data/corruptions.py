"""Corruptions of test images at five levels, computed on the fly (Hendrycks and Dietterich, 2019, arXiv 1903.12261).

Each maps uint8 images [N, C, H, W] to such images.  The constants of each level are those of CIFAR-10-C
(github.com/hendrycks/robustness, ``make_cifar_c.py``): in pixels, for images of 32x32, and unchanged for other sizes.
Results are rounded to the nearest level of grey, where the authors truncate.

To add a corruption, write a function with these arguments and an entry of :data:`CORRUPTIONS`.  Imports no torch, so
that suites can be checked without it.
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
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # factor of the distance to the mean
JPEG_QUALITY = (80, 65, 58, 50, 40)


def gaussian_noise(images: Tensor, level: int, draws: Iterable[torch.Generator]) -> Tensor:
    """``x + c e`` with standard normal ``e`` for each pixel and channel, clipped."""
    import torch

    noise = torch.stack([torch.randn(images.shape[1:], generator=draw) for draw in draws])
    return _to_uint8(images / 255 + NOISE_STD[level - 1] * noise)


def defocus_blur(images: Tensor, level: int, draws: Iterable[torch.Generator]) -> Tensor:
    """Convolution with a disk whose edge is smoothed; images are reflected at their outermost pixels.

    Raises:
        DataError: images of fewer than 3x3 pixels, which are smaller than the padding.
    """
    from torch.nn import functional as F

    if min(images.shape[2:]) < 3:
        raise DataError(
            f"defocus_blur needs images of 3x3 pixels or more, not {images.shape[2]}x{images.shape[3]}: remove it "
            "from `corruptions`."
        )
    channels = images.shape[1]
    kernel = defocus_kernel(*DEFOCUS[level - 1]).expand(channels, 1, 5, 5)
    return _to_uint8(F.conv2d(F.pad(images / 255, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels))


def defocus_kernel(radius: float, sigma: float) -> Tensor:
    """A disk of ``radius`` < 2 pixels, blurred by 3x3 Gaussian taps: float [5, 5] with sum 1."""
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
    """JPEG compression by Pillow.

    Raises:
        DataError: images that are neither grey nor RGB.
    """
    import numpy as np
    import torch
    from PIL import Image

    if images.shape[1] not in (1, 3):
        raise DataError(f"jpeg needs images of 1 or 3 channels, not {images.shape[1]}: remove it from `corruptions`.")
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
    """Apply a corruption to images.

    Each image has its own generator, seeded by ``axes``, the corruption and the image's number, so that the result for
    an image does not depend on the others.  The level is not an axis: a higher level scales the same noise.

    Args:
        images: uint8 [N, C, H, W].
        level: 1 to 5.
        ids: number of each image, which seeds its draws; None: 0 to N - 1.

    Raises:
        SpecError: unknown corruption or level.
        DataError: the corruption cannot be applied to these images.
    """
    import torch

    if name not in CORRUPTIONS:
        raise SpecError(f"Unknown corruption '{name}'{did_you_mean(name, CORRUPTIONS)}.")
    if level not in LEVELS:
        raise SpecError(f"Corruptions have levels 1 to 5, not {level}.")
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise DataError(
            f"Corruptions take uint8 images [N, C, H, W], not {images.dtype} {list(images.shape)}: convert them."
        )
    images, ids = images.cpu(), range(len(images)) if ids is None else ids
    if not len(images):
        return images
    return CORRUPTIONS[name](images, level, (generator(**axes, corruption=name, example=int(i)) for i in ids))


def _to_uint8(x: Tensor) -> Tensor:
    import torch

    return x.clamp(0, 1).mul(255).round().to(torch.uint8)
