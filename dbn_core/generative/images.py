"""Samples as files, folders of images, and the distance between two sets of images.

>>> import tempfile
>>> import torch
>>> samples = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
>>> with tempfile.TemporaryDirectory() as folder:
...     write_samples(Path(folder), samples)
...     again = read_images(Path(folder) / "images")
>>> again.shape, kid(samples, again) < 0.01
(torch.Size([20, 3, 8, 8]), True)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.utils import make_grid

from dbn_core.data.augment import to_float
from dbn_core.data.decode import decode_images
from dbn_core.data.folder import is_image
from dbn_core.errors import DataError, PluginError
from dbn_core.files import replacing, unwritable
from dbn_core.generative.metrics.samples import features, kernel_distance
from dbn_core.nets.modules import ModuleNetwork
from dbn_core.nets.spec import ModuleSpec

_ROW = 8  # images in a row of the grid
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def write_samples(folder: Path, samples: torch.Tensor) -> None:
    """Write images as ``images/00000.png`` and so on, ``grid.png`` of the first 64, and all in ``samples.npz``.

    ``dbn-bench score samples.npz --suite SUITE`` reads the latter: ``samples``, uint8 [N, C, H, W].

    Args:
        folder: made if need be; files of the same names are replaced.
        samples: [N, C, H, W] with 1 or 3 channels, uint8 or floats, which are cut to [0, 1].

    Raises:
        DataError: other shapes or no finite numbers, or the folder has more images than are written.
        StoreError: the folder cannot be written to.
    """
    samples = _images(samples, "The samples").cpu()
    if samples.is_floating_point():
        samples = samples.clamp(0, 1).mul(255).round().to(torch.uint8)
    names = [f"{index:05}.png" for index in range(len(samples))]
    kept = {path.name for path in (folder / "images").glob("*")} - set(names)
    if kept:
        raise DataError(f"{folder / 'images'} holds other files, such as {min(kept)}: choose an empty folder.")
    try:
        for name, sample in zip(names, samples, strict=True):
            _write_png(folder / "images" / name, sample)
        _write_png(folder / "grid.png", make_grid(samples[: _ROW**2], nrow=_ROW, padding=1, pad_value=255))
        with replacing(folder / "samples.npz") as file:
            np.savez_compressed(file, samples=samples.numpy())
    except OSError as error:
        raise unwritable(folder, error) from error


def _write_png(path: Path, image: torch.Tensor) -> None:
    """Write uint8 [C, H, W]."""
    array = image.permute(1, 2, 0).numpy()
    with replacing(path, sync=False) as file:
        Image.fromarray(array[..., 0] if len(image) == 1 else array).save(file, "PNG")


def _images(images: torch.Tensor, name: str) -> torch.Tensor:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise DataError(f"{name} have the shape {list(images.shape)}: give images [N, C, H, W] of 1 or 3 channels.")
    if not images.isfinite().all():
        raise DataError(f"{name} have NaN or infinite values: check the model that made them.")
    return images


def read_images(folder: Path, channels: int = 3, image_size: int | None = None) -> torch.Tensor:
    """All images of a folder, at any depth, in the order of their paths: uint8 [N, channels, H, W].

    Args:
        folder: files of other kinds are passed over.
        channels: 3 for RGB, 1 for grey.
        image_size: side of a square to which all are resized and cropped; ``None``: all are of one size.

    Raises:
        DataError: the folder is missing or has no images, or an image is damaged or of another size.
    """
    files = sorted(path for path in folder.rglob("*") if is_image(path))
    if not files:
        what = "has no images" if folder.is_dir() else "does not exist"
        raise DataError(f"The folder {folder} {what}: give a folder of PNG, JPEG or other images.")
    return decode_images(((str(path), path) for path in files), len(files), channels, image_size)


def kid(samples: torch.Tensor, images: torch.Tensor, extractor: nn.Module | None = None) -> float:
    """Kernel distance of samples and real images: unbiased, of the features of all images at once.

    It is a published KID (Binkowski et al., 2018) only with that one's features, those of an Inception network, and its
    preparation of images.  Compare values of one extractor, and with the value of real against other real images.

    Args:
        samples, images: [N, C, H, W], uint8 or floats in [0, 1], of one size.
        extractor: maps floats [B, C, H, W] in [0, 1] to features [B, ...]; ``None``: pixels are the features.

    Raises:
        DataError: sets of fewer than two images, of other shapes, or with values that are not finite.
        PluginError: the features are not finite.
    """
    pair = [_images(samples, "The samples"), _images(images, "The real images")]
    if samples.shape[1:] != images.shape[1:]:
        raise DataError(
            f"The samples are {list(samples.shape[1:])} and the real images {list(images.shape[1:])}, channels first: "
            "give images of the samples' size, or resize them by image_size."
        )
    if min(len(samples), len(images)) < 2:
        raise DataError(f"There are {len(samples)} samples and {len(images)} real images: give two or more of each.")
    first, second = (features(extractor or nn.Flatten(), to_float(each)) for each in pair)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise PluginError("The extractor returned NaN or infinite features: check its weights.")
    return kernel_distance(first, second)


def image_features(network: str, weights: Path, channels: int = 3, input_size: int | None = 224) -> nn.Module:
    """The features in front of the last layer of an ImageNet classifier, an extractor for :func:`kid`.

    Args:
        network: ``torchvision:NAME`` or ``timm:NAME``.
        weights: its weights file, by :func:`~dbn_core.nets.weights.read_weights`; nothing is downloaded.
        channels: of the images; grey ones are repeated for networks of torchvision.
        input_size: side in pixels to which images are resized; ``None``: as they are.

    Raises:
        SpecError, DataError: there is no such network, or the file does not fit.
    """
    spec = ModuleSpec(name=network, weights=weights, input_size=input_size)
    classifier = ModuleNetwork(spec, 1000, channels, _MEAN[:channels], _STD[:channels])
    classifier.reset(torch.Generator().manual_seed(0))
    return classifier.last_layer()[0].eval().requires_grad_(False)
