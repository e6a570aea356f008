"""Decode images into one uint8 tensor."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dbn_core.errors import DataError, reason

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# Pillow reads some forty other formats, too, and passes PostScript to Ghostscript, which executes it.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_NAMED = 10  # images in an error, at most


def decode_images(
    encoded: Iterable[tuple[str, bytes | Path]], count: int, channels: int, image_size: int | None
) -> Tensor:
    """Decode ``count`` images to uint8 [count, channels, H, W].

    Args:
        encoded: for each image a name for error messages, and its bytes or its file.
        count: number of images.
        channels: 3 for RGB, 1 for grey.
        image_size: side of a square in pixels: the short side is resized to it and the long side is cropped at the
            centre.  ``None`` keeps the size, which must be the same for all images.

    Raises:
        DataError: an image differs in size, or some are missing or cannot be decoded as PNG, JPEG, BMP, WebP, GIF, TIFF
            or PPM; the message counts these and names up to ten.
    """
    import numpy as np
    import torch

    images: np.ndarray | None = None
    problems: list[str] = []
    for row, (place, item) in enumerate(encoded):
        try:
            image = _decode(place, item, channels, image_size)
        except DataError as error:
            problems.append(str(error))
            continue
        if images is None:
            images = np.empty((count, *image.shape), dtype=np.uint8)
        if image.shape != images.shape[1:]:
            raise DataError(
                f"{place} is {image.shape[1]}x{image.shape[0]} pixels but the images before it are "
                f"{images.shape[2]}x{images.shape[1]}: set `image_size` to resize them all."
            )
        images[row] = image
    if len(problems) > 1:
        first = f", first of all {_NAMED}" if len(problems) > _NAMED else ""
        faults = "; ".join(problem.rpartition(": ")[0] for problem in problems[:_NAMED])
        raise DataError(f"{len(problems)} of {count} images cannot be used{first}: {faults}: replace or convert them.")
    if problems:
        raise DataError(problems[0])
    if images is None:
        return torch.empty((0, channels, image_size or 1, image_size or 1), dtype=torch.uint8)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _decode(place: str, item: bytes | Path, channels: int, image_size: int | None) -> np.ndarray:
    """One image as uint8 [H, W, channels]."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item, formats=_FORMATS) as image:
            if image.mode.startswith(("I", "F")):  # Pillow silently clips 16-bit pixels to white
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
    except Exception as error:  # a damaged file raises OSError, SyntaxError, EOFError, struct.error ... by format
        raise DataError(f"{place} cannot be decoded ({reason(error)}): replace the damaged image.") from error
    if image_size is not None and picture.size != (image_size, image_size):
        picture = ImageOps.fit(picture, (image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(picture.height, picture.width, channels)
