"""Encoded images to one uint8 tensor."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dbn_core.errors import DataError, reason

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# Pillow knows some forty formats more, and hands PostScript to Ghostscript, which runs it as a program.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")


def decode_images(
    encoded: Iterable[tuple[str, bytes | Path]], count: int, channels: int, image_size: int | None
) -> Tensor:
    """Decode ``count`` images to uint8 [count, channels, H, W].

    Args:
        encoded: a place to name in errors, and the bytes or the file of one image.
        count: how many there are.
        channels: 3 for RGB, 1 for grey.
        image_size: side of a square in pixels: the short side is resized to it and the long side cropped about the
            centre; ``None`` keeps the size, which all images must then share.

    Raises:
        DataError: for an image that is missing, cannot be decoded or is of none of the formats PNG, JPEG, BMP, WebP,
            GIF, TIFF and PPM, or that differs in size, naming its place.
    """
    import numpy as np
    import torch

    images: np.ndarray | None = None
    for row, (place, item) in enumerate(encoded):
        image = _decode(place, item, channels, image_size)
        if images is None:
            images = np.empty((count, *image.shape), dtype=np.uint8)
        if image.shape != images.shape[1:]:
            raise DataError(
                f"{place} is {image.shape[1]}x{image.shape[0]} pixels but the images before it are "
                f"{images.shape[2]}x{images.shape[1]}: set `image_size` to resize them all."
            )
        images[row] = image
    if images is None:
        return torch.empty((0, channels, image_size or 1, image_size or 1), dtype=torch.uint8)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _decode(place: str, item: bytes | Path, channels: int, image_size: int | None) -> np.ndarray:
    """One image as uint8 [H, W, channels]."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item, formats=_FORMATS) as image:
            if image.mode.startswith(("I", "F")):  # PIL clips 16-bit pixels to white without a word
                raise DataError(f"{place} has pixels of more than 8 bits: convert it to 8 bits a channel.")
            picture: Image.Image = image.convert("RGB" if channels == 3 else "L")
    except FileNotFoundError as error:
        raise DataError(f"{place} is missing: restore the file.") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{place} cannot be decoded as {', '.join(_FORMATS)}: replace the damaged image, or convert it to one of "
            "these formats."
        ) from error
    except DataError:
        raise
    except Exception as error:  # damage shows as OSError, SyntaxError, EOFError, struct.error ... by format
        raise DataError(f"{place} cannot be decoded ({reason(error)}): replace the damaged image.") from error
    if image_size is not None and picture.size != (image_size, image_size):
        picture = ImageOps.fit(picture, (image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(picture.height, picture.width, channels)
