"""Shifted images for a predictor: corrupted test images and out-of-distribution images, one set after the other."""

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

    A test image is corrupted alike in whichever split it is (by its number in the whole source, where it has one).

    Args:
        ood: names of sets of out-of-distribution images.
        images: N, number of test images, from the first, and of out-of-distribution images in each set.
        axes: of all seeds.

    Raises:
        DataError: a corruption does not apply to these images, or a set has none of this size.
    """
    test = dataset.test.images[:images]
    ids = None if dataset.test_ids is None else dataset.test_ids[:images].tolist()
    for name in corruptions:
        for level in levels:
            yield corrupted_name(name, level), corrupt(test, name, level, ids, **axes)
    for name in ood:
        yield ood_name(name), ood_images(name, len(test), dataset.channels, dataset.image_size, **axes)
