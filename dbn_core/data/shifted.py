"""The sets of images on which a predictor is tried beyond the test split, by name and one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dbn_core.data.corruptions import corrupt
from dbn_core.data.ood import outside_images

if TYPE_CHECKING:
    from torch import Tensor

    from dbn_core.data.dataset import Dataset


def corrupted_name(corruption: str, level: int) -> str:
    """What a set of corrupted test images is called."""
    return f"{corruption}/{level}"


def outside_name(outside: str) -> str:
    """What a set of images of no class is called."""
    return f"outside/{outside}"


def shifted_sets(
    dataset: Dataset,
    corruptions: Sequence[str],
    levels: Sequence[int],
    outside: Sequence[str],
    images: int,
    **axes: Any,
) -> Iterator[tuple[str, Tensor]]:
    """Name and images, uint8 [N, C, H, W], of each set.

    A test image is corrupted alike in whichever split it is (by its number in the whole source, where it has one).

    Args:
        images: N: how many of the test images, from the first, and how many of no class in each set.
        axes: of all seeds.

    Raises:
        DataError: images that a corruption cannot be applied to, or a set does not have.
    """
    test = dataset.test.images[:images]
    ids = None if dataset.test_ids is None else dataset.test_ids[:images].tolist()
    for name in corruptions:
        for level in levels:
            yield corrupted_name(name, level), corrupt(test, name, level, ids, **axes)
    for name in outside:
        yield outside_name(name), outside_images(name, len(test), dataset.channels, dataset.image_size, **axes)
