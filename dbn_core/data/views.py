"""Views: augmented copies of a training split that a seed reproduces, so that teachers' logits on them can be stored.

Teachers that run online see new crops, flips and mixtures in every epoch, and M of them run at every step of every
student.  With V views a student sees V fixed augmented copies of the split in turn.  The logits of a teacher on them
are computed once, for every method, size and repetition with this teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dbn_core.data.augment import crop, draw_flips, draw_offsets, mirror, mix, mixup_coefficients, to_float
from dbn_core.data.batch import Batch
from dbn_core.data.dataset import Split
from dbn_core.rng import generator


@dataclass(frozen=True)
class Augmentation:
    """How the images of a view are made: padding of the crop in pixels, whether to flip, alpha of mixup."""

    crop_pad: int
    flip: bool
    mixup: float


@dataclass(frozen=True)
class _Draws:
    """The random numbers of one view, for all N examples."""

    offsets: Tensor  # int64 [2, N]
    mirrored: Tensor  # bool [N]
    lam: Tensor  # float [N], the partner's weight
    partner: Tensor  # int64 [N]

    def to(self, device: torch.device) -> _Draws:
        """The same draws on ``device``."""
        return _Draws(*(draws.to(device) for draws in vars(self).values()))


class Views:
    """V augmented and mixed copies of a split.

    View v does not depend on V, so a larger V starts with the views of a smaller one.  Numbers are drawn on the CPU and
    images are made on the device of the split, so that every device sees the same views.

    Args:
        split: the training split.
        augmentation: crop, flip and mixup; each example has its own mixup weight, and a partner from the whole split.
        count: V, at least 1.
        axes: seed axes; together with ``augmentation`` they determine every random number.
    """

    def __init__(self, split: Split, augmentation: Augmentation, count: int, axes: Mapping[str, Any]) -> None:
        self.split, self.augmentation, self.count, self.axes = split, augmentation, count, dict(axes)
        self._current: tuple[int, _Draws] | None = None

    def _draws(self, view: int) -> _Draws:
        if self._current is None or self._current[0] != view:
            how, n = self.augmentation, len(self.split)
            draw = generator(**self.axes, purpose="view", view=view, augmentation=vars(how))
            offsets, mirrored = draw_offsets(n, how.crop_pad, draw), draw_flips(n, draw)
            lam = mixup_coefficients(n, how.mixup, draw, per_example=True)
            draws = _Draws(offsets, mirrored, lam, torch.randperm(n, generator=draw))
            self._current = view, draws.to(self.split.images.device)
        return self._current[1]

    def _own(self, indices: Tensor, draws: _Draws) -> Tensor:
        """Cropped and mirrored images, float [B, C, H, W], before mixing."""
        how, images = self.augmentation, self.split.images[indices]
        if how.crop_pad:
            images = crop(images, how.crop_pad, draws.offsets[:, indices])
        return to_float(mirror(images, draws.mirrored[indices]) if how.flip else images)

    def batch(self, epoch: int, indices: Tensor, device: torch.device | str = "cpu") -> Batch:
        """The examples ``indices`` [B] of view ``epoch mod V``."""
        view = epoch % self.count
        draws, indices = self._draws(view), indices.to(self.split.images.device)
        own = self._own(indices, draws).to(device)
        labels = self.split.labels[indices].to(device)
        images, mixed, partner_labels, lam = own, None, labels, torch.zeros(len(indices), 1, device=device)
        if self.augmentation.mixup:
            partners, weights = draws.partner[indices], draws.lam[indices]
            mixed = own, self._own(partners, draws).to(device)
            partner_labels = self.split.labels[partners].to(device)
            images, lam = mix(*mixed, weights), weights.to(device)[:, None]
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, labels, partner_labels, lam, indices, mixed, view)
