"""Mixtures of two images: mixup blends them, cutmix puts a box of one into the other.

Mixup: Zhang et al., 2018, arXiv 1710.09412.  Cutmix: Yun et al., 2019, arXiv 1905.04899.  ``lam`` is the partner's
share of a mixture, so labels are ``(1 - lam) own + lam partner`` for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dbn_core.data.augment import mix_images, mixup_coefficients


@dataclass(frozen=True)
class Mixtures:
    """How each of N examples is mixed with its partner.

    Attributes:
        lam: float [N], the partner's share: its weight in mixup, its share of the pixels in cutmix.
        boxes: int64 [4, N]: top, bottom, left and right of the partner's pixels, the second and last excluded; None
            without cutmix.
        cut: bool [N], which examples have a box; the others are blended.
    """

    lam: Tensor
    boxes: Tensor | None = None
    cut: Tensor | None = None

    def __getitem__(self, indices: Tensor) -> Mixtures:
        """The mixtures of some examples."""
        if self.boxes is None or self.cut is None:
            return Mixtures(self.lam[indices])
        return Mixtures(self.lam[indices], self.boxes[:, indices], self.cut[indices])

    def to(self, device: torch.device | str) -> Mixtures:
        """The same mixtures on ``device``."""
        boxes, cut = (None if x is None else x.to(device) for x in (self.boxes, self.cut))
        return Mixtures(self.lam.to(device), boxes, cut)

    def apply(self, own: Tensor, other: Tensor) -> Tensor:
        """The mixed images, float [N, C, H, W], on the device of ``own``; inside a box they equal ``other``."""
        if self.boxes is None or self.cut is None:
            return mix_images(own, other, self.lam)
        device, (height, width) = own.device, own.shape[-2:]
        top, bottom, left, right = self.boxes.to(device)[:, :, None, None]
        rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
        inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        blend = self.lam.to(own)[:, None, None].expand(inside.shape)
        weight = torch.where(self.cut.to(device)[:, None, None], inside.to(own), blend)[:, None]
        return (1 - weight) * own + weight * other


def draw_mixtures(
    count: int,
    size: tuple[int, int],
    mixup: float,
    cutmix: float,
    generator: torch.Generator,
    per_example: bool = True,
) -> Mixtures:
    """Draw mixtures of ``count`` examples; if both alphas are above 0, each kind has probability one half.

    Args:
        count: N.
        size: height and width of the images.
        mixup, cutmix: alphas of the two kinds; 0 means none and draws nothing.
        generator: source of all numbers.
        per_example: whether each example has its own mixture; otherwise the batch has one share, box and kind.
    """
    lam = mixup_coefficients(count, mixup, generator, per_example)
    if not cutmix:
        return Mixtures(lam)
    boxes = _draw_boxes(mixup_coefficients(count, cutmix, generator, per_example), size, generator, per_example)
    # The share of the visible box: one that crosses an edge is cut off there.
    share = ((boxes[1] - boxes[0]) * (boxes[3] - boxes[2])).to(lam) / (size[0] * size[1])
    cut = _uniform(count, generator, per_example) < (0.5 if mixup else 1.0)
    return Mixtures(torch.where(cut, share, lam), boxes, cut)


def _draw_boxes(area: Tensor, size: tuple[int, int], generator: torch.Generator, per_example: bool) -> Tensor:
    """Boxes of the images' proportions that cover ``area`` [N] of them, about uniform centres: int64 [4, N]."""
    edges = []
    for side in size:
        length = (side * area.sqrt()).round().long()
        centre = (side * _uniform(len(area), generator, per_example)).long()
        start = centre - length // 2
        edges += [start.clamp(0, side), (start + length).clamp(0, side)]
    return torch.stack(edges)


def _uniform(count: int, generator: torch.Generator, per_example: bool) -> Tensor:
    """Float64 [count] on the CPU, in [0, 1)."""
    draws = torch.rand(count if per_example else 1, dtype=torch.float64, generator=generator, device=generator.device)
    return draws.cpu().expand(count)
