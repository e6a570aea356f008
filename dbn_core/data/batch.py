"""One mini-batch as a training step sees it, and how it is made online."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dbn_core.data.augment import mix, mixup_coefficients, random_crop, random_flip, to_float
from dbn_core.data.dataset import Split
from dbn_core.train.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """One augmented mini-batch.

    Attributes:
        images: float [B, C, H, W] in [0, 1], cropped, flipped and mixed.
        labels: int64 [B], of the images before mixing.
        partner_labels: int64 [B], of the images mixed in (equal to ``labels`` without any).
        lam: float [B, 1], the weight of the partner.
        indices: int64 [B], positions in the training split.
        mixed: the two images of each mixture, float [B, C, H, W] each: its own and its partner's; None without any.
        view: which view of the training split this is, None for a batch augmented online.
    """

    images: torch.Tensor
    labels: torch.Tensor
    partner_labels: torch.Tensor
    lam: torch.Tensor
    indices: torch.Tensor
    mixed: tuple[torch.Tensor, torch.Tensor] | None = None
    view: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def dominant(self) -> torch.Tensor:
        """Of each mixture the image with the larger share, float [B, C, H, W]; ``images`` without mixtures."""
        if self.mixed is None:
            return self.images
        own, other = self.mixed
        return torch.where(self.lam[:, :, None, None] > 0.5, other, own)

    def mixed_labels(self, classes: int) -> torch.Tensor:
        """Label probabilities [B, K] of the mixed images: one-hot without mixtures."""
        # Not torch's one_hot, which looks at the largest label and so waits for the device.
        zeros = self.lam.new_zeros(len(self), classes)
        own, partner = (zeros.scatter(1, y[:, None], 1.0) for y in (self.labels, self.partner_labels))
        return (1 - self.lam) * own + self.lam * partner


def make_batch(
    split: Split, indices: torch.Tensor, recipe: Recipe, flip: bool, generator: torch.Generator, device: torch.device
) -> Batch:
    """Cut, augment and mix one batch; every random number comes from ``generator``."""
    images, labels = to_float(split.images[indices].to(device)), split.labels[indices].to(device)
    if recipe.crop_pad:
        images = random_crop(images, recipe.crop_pad, generator)
    if flip:
        images = random_flip(images, generator)
    lam, partners, mixed = torch.zeros(len(labels), 1, device=device), labels, None
    if recipe.mixup:
        weights = mixup_coefficients(len(labels), recipe.mixup, generator, recipe.mixup_per == "example")
        permutation = torch.randperm(len(labels), generator=generator).to(device)
        lam, partners = weights.to(device)[:, None], labels[permutation]
        mixed = images, images[permutation]
        images = mix(*mixed, weights)
    images = images.contiguous(memory_format=torch.channels_last)
    return Batch(images, labels, partners, lam, indices, mixed)
