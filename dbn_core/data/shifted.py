"""Shifted images: sets of corrupted test images and of out-of-distribution images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dbn_core.data.corruptions import corrupt
from dbn_core.data.ood import ood_images

if TYPE_CHECKING:
    from torch import Tensor

    from dbn_core.data.dataset import Dataset


def corrupted_name(corruption: str, level: int) -> str:
    """Name of a set of corrupted test images."""
    return f"{corruption}/{level}"


def ood_name(name: str) -> str:
    """Name of a set of out-of-distribution images."""
    return f"ood/{name}"


def shifted_sets(
    dataset: Dataset,
    corruptions: Sequence[str],
    levels: Sequence[int],
    ood: Sequence[str],
    images: int,
    **axes: Any,
) -> Iterator[tuple[str, Tensor]]:
    """Name and images, uint8 [N, C, H, W], of each set.

    The draws for a test image depend on its number in the whole source, if it has one, and so not on the split.

    Args:
        ood: names of sets of out-of-distribution images.
        images: N, the number of images in each set; corrupted are the first N test images.
        axes: seed axes.

    Raises:
        DataError: a corruption cannot be applied to these images, or a set has no images of this size.
    """
    test = dataset.test.images[:images]
    ids = None if dataset.test_ids is None else dataset.test_ids[:images].tolist()
    for name in corruptions:
        for level in levels:
            yield corrupted_name(name, level), corrupt(test, name, level, ids, **axes)
    for name in ood:
        yield ood_name(name), ood_images(name, len(test), dataset.channels, dataset.image_size, **axes)
