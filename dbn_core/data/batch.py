"""One mini-batch as a training step gets it, and its online augmentation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dbn_core.data.augment import crop, draw_flips, draw_offsets, mirror, to_float
from dbn_core.data.dataset import Split
from dbn_core.data.mixing import draw_mixtures
from dbn_core.train.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """One augmented mini-batch.

    Attributes:
        images: float [B, C, H, W] in [0, 1], cropped, flipped and mixed.
        labels: int64 [B], of the images before mixing.
        partner_labels: int64 [B], of the images mixed in; equal to ``labels`` without mixing.
        lam: float [B, 1], the share of the partner: its weight in mixup, its part of the pixels in cutmix.
        indices: int64 [B], positions in the training split.
        mixed: the images before mixing and their partners, float [B, C, H, W] each; None without mixup.
        view: number of the stored view; None for a batch that was augmented online.
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
        """The image with the larger weight in each mixture, float [B, C, H, W]; ``images`` without mixup."""
        if self.mixed is None:
            return self.images
        own, other = self.mixed
        return torch.where(self.lam[:, :, None, None] > 0.5, other, own)

    def mixed_labels(self, classes: int) -> torch.Tensor:
        """Label probabilities [B, K] of the mixed images; one-hot without mixup."""
        # torch's one_hot reads the largest label and so waits for the device.
        zeros = self.lam.new_zeros(len(self), classes)
        own, partner = (zeros.scatter(1, y[:, None], 1.0) for y in (self.labels, self.partner_labels))
        return (1 - self.lam) * own + self.lam * partner


def make_batch(
    split: Split, indices: torch.Tensor, recipe: Recipe, flip: bool, generator: torch.Generator, device: torch.device
) -> Batch:
    """Crop, flip and mix one batch; every random number comes from ``generator``."""
    images, labels = to_float(split.images[indices].to(device)), split.labels[indices].to(device)
    if recipe.crop_pad:
        images = crop(images, recipe.crop_pad, draw_offsets(len(images), recipe.crop_pad, generator))
    if flip:
        images = mirror(images, draw_flips(len(images), generator))
    lam, partners, mixed = torch.zeros(len(labels), 1, device=device), labels, None
    if recipe.mixup or recipe.cutmix:
        size, alphas = (images.shape[-2], images.shape[-1]), (recipe.mixup, recipe.cutmix)
        mixtures = draw_mixtures(len(labels), size, *alphas, generator, recipe.mixup_per == "example")
        permutation = torch.randperm(len(labels), generator=generator).to(device)
        lam, partners = mixtures.lam.to(device)[:, None], labels[permutation]
        mixed = images, images[permutation]
        images = mixtures.apply(*mixed)
    images = images.contiguous(memory_format=torch.channels_last)
    return Batch(images, labels, partners, lam, indices, mixed)
