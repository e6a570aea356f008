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

from dbn_core.data.augment import crop, draw_flips, draw_offsets, mirror, to_float
from dbn_core.data.batch import Batch
from dbn_core.data.dataset import Split
from dbn_core.data.mixing import Mixtures, draw_mixtures
from dbn_core.rng import generator


@dataclass(frozen=True)
class Augmentation:
    """How the images of a view are made: padding of the crop in pixels, whether to flip, alphas of mixup and cutmix."""

    crop_pad: int
    flip: bool
    mixup: float
    cutmix: float = 0.0

    def axes(self) -> dict[str, Any]:
        """Seed axes; cutmix came later, so that views without it have the seeds that they had before."""
        return {name: value for name, value in vars(self).items() if value or name != "cutmix"}


@dataclass(frozen=True)
class _Draws:
    """The random numbers of one view, for all N examples."""

    offsets: Tensor  # int64 [2, N]
    mirrored: Tensor  # bool [N]
    mixtures: Mixtures  # of all N
    partner: Tensor  # int64 [N]

    def to(self, device: torch.device) -> _Draws:
        """The same draws on ``device``."""
        return _Draws(
            self.offsets.to(device), self.mirrored.to(device), self.mixtures.to(device), self.partner.to(device)
        )


class Views:
    """V augmented and mixed copies of a split.

    View v does not depend on V, so a larger V starts with the views of a smaller one.  Numbers are drawn on the CPU and
    images are made on the device of the split, so that every device sees the same views.

    Args:
        split: the training split.
        augmentation: crop, flip and mixtures of the views; each example is mixed by a draw of its own, and its partner
            is any other of the split.
        count: V.
        axes: seed axes; they and ``augmentation`` fix every random number.

    Raises:
        SpecError: V is below 1.
    """

    def __init__(self, split: Split, augmentation: Augmentation, count: int, axes: Mapping[str, Any]) -> None:
        self.split, self.augmentation, self.count, self.axes = split, augmentation, count, dict(axes)
        self._current: tuple[int, _Draws] | None = None

    def _draws(self, view: int) -> _Draws:
        if self._current is None or self._current[0] != view:
            how, n = self.augmentation, len(self.split)
            draw = generator(**self.axes, purpose="view", view=view, augmentation=how.axes())
            offsets, mirrored = draw_offsets(n, how.crop_pad, draw), draw_flips(n, draw)
            size = self.split.images.shape[-2], self.split.images.shape[-1]
            mixtures = draw_mixtures(n, size, how.mixup, how.cutmix, draw)
            draws = _Draws(offsets, mirrored, mixtures, torch.randperm(n, generator=draw))
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
        if self.augmentation.mixup or self.augmentation.cutmix:
            partners, mixtures = draws.partner[indices], draws.mixtures[indices]
            mixed = own, self._own(partners, draws).to(device)
            partner_labels = self.split.labels[partners].to(device)
            images, lam = mixtures.apply(*mixed), mixtures.lam.to(device)[:, None]
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, labels, partner_labels, lam, indices, mixed, view)
