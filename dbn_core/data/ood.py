"""Out-of-distribution (OOD) images of any size, generated or cropped from images that come with scikit-learn.

They replace the usual sets of OOD detection, which need a download: ``svhn-like`` replaces SVHN, ``patches`` and
``textures`` replace scenes and textures.  To add a set, write a function that draws one image and an entry of
:data:`OOD_SETS`.  Torch is imported on use, so that suites can be checked without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from dbn_core.errors import DataError, SpecError, did_you_mean
from dbn_core.rng import generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def svhn_like(draws: torch.Generator, channels: int, size: tuple[int, int]) -> Tensor:
    """A handwritten digit of scikit-learn in one colour on another, scaled to the image."""
    import torch
    from torch.nn import functional as F

    digits = _digits()
    digit = digits[torch.randint(len(digits), (), generator=draws)]
    scaled = F.interpolate(digit[None, None], size, mode="bilinear", align_corners=False)[0]
    return _in_two_colours(scaled, draws, channels)


def patches(draws: torch.Generator, channels: int, size: tuple[int, int]) -> Tensor:
    """A random crop of a photograph at its full, half or quarter size.

    Raises:
        DataError: the photographs are smaller than the image.
    """
    import torch
    from torch.nn import functional as F

    photos = _photos()
    photo = photos[int(torch.randint(len(photos), (), generator=draws))]
    height, width = photo.shape[1:]
    zooms = [zoom for zoom in (1, 2, 4) if zoom * size[0] <= height and zoom * size[1] <= width]
    if not zooms:
        raise DataError(
            f"'patches' are crops of photographs of {width}x{height} pixels, and images of {size[1]}x{size[0]} are "
            "larger: remove 'patches' from `ood`."
        )
    zoom = zooms[int(torch.randint(len(zooms), (), generator=draws))]
    high, wide = zoom * size[0], zoom * size[1]
    top = int(torch.randint(height - high + 1, (), generator=draws))
    left = int(torch.randint(width - wide + 1, (), generator=draws))
    crop = F.avg_pool2d(photo[None, :, top : top + high, left : left + wide], zoom)[0]
    return crop if channels == 3 else crop.mean(0, keepdim=True).expand(channels, -1, -1)


def textures(draws: torch.Generator, channels: int, size: tuple[int, int]) -> Tensor:
    """A grating of random direction and phase, or noise with an amplitude of 1 / f, in two colours."""
    import torch

    rows, columns = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])
    if torch.rand((), generator=draws) < 0.5:
        period = 2 + torch.rand((), generator=draws) * (max(size) / 2 - 2)  # pixels; 2 is the shortest possible
        angle, phase = 2 * torch.pi * torch.rand(2, generator=draws)
        along = torch.arange(size[0])[:, None] * torch.sin(angle) + torch.arange(size[1]) * torch.cos(angle)
        field = 0.5 + 0.5 * torch.cos(2 * torch.pi * along / period + phase)
    else:
        frequency = (rows**2 + columns**2).sqrt()
        frequency[0, 0] = torch.inf  # no mean
        noise = torch.fft.irfft2(torch.fft.rfft2(torch.randn(size, generator=draws)) / frequency, s=size)
        field = (0.5 + 0.25 * noise / noise.std()).clamp(0, 1)
    return _in_two_colours(field[None], draws, channels)


def uniform(draws: torch.Generator, channels: int, size: tuple[int, int]) -> Tensor:
    """Each pixel and channel is drawn independently."""
    import torch

    return torch.rand(channels, *size, generator=draws)


# Draws one image, float [C, H, W] in [0, 1], from a generator.
Maker: TypeAlias = "Callable[[torch.Generator, int, tuple[int, int]], Tensor]"
OOD_SETS: Mapping[str, Maker] = {
    "svhn-like": svhn_like,
    "patches": patches,
    "textures": textures,
    "uniform": uniform,
}
OOD_SET_FROM_SOURCE: Mapping[str, str] = {"digits": "svhn-like"}  # the set that is made of a source's images


def ood_images(name: str, count: int, channels: int, size: tuple[int, int], **axes: Any) -> Tensor:
    """``count`` images of a set, uint8 [count, channels, H, W].

    Image i has its own generator, seeded by ``axes``, the name of the set and i.

    Raises:
        SpecError: unknown set.
        DataError: the set has no images of this size.
    """
    import torch

    if name not in OOD_SETS:
        raise SpecError(f"Unknown set of out-of-distribution images '{name}'{did_you_mean(name, OOD_SETS)}.")
    images = torch.empty(count, channels, *size)
    for index in range(count):
        images[index] = OOD_SETS[name](generator(**axes, outside=name, example=index), channels, size)
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


def _in_two_colours(field: Tensor, draws: torch.Generator, channels: int) -> Tensor:
    """Blend two colours by a field [1, H, W] of values in [0, 1]."""
    import torch

    dark, bright = torch.rand(2, channels, 1, 1, generator=draws)
    # One channel is set to the extreme that is further away, so that the colours always differ visibly.
    one = int(torch.randint(channels, (), generator=draws))
    bright[one] = torch.where(dark[one] < 0.5, 1.0, 0.0)
    return dark + field * (bright - dark)


@cache
def _digits() -> Tensor:
    import torch
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().images).float() / 16


@cache
def _photos() -> list[Tensor]:
    import torch
    from sklearn.datasets import load_sample_images

    return [torch.tensor(image).permute(2, 0, 1).float() / 255 for image in load_sample_images().images]
