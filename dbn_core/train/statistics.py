"""BatchNorm statistics of a network whose weights were not reached by training: on a curve, or averaged."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from dbn_core.data.augment import batches
from dbn_core.data.batch import make_batch
from dbn_core.data.dataset import Split
from dbn_core.train.recipe import Recipe

_BATCH = 256


def refresh_statistics(
    network: nn.Module, split: Split, recipe: Recipe, flip: bool, generator: torch.Generator, device: torch.device
) -> None:
    """Replace BatchNorm statistics by plain averages over one epoch of images, augmented as in training.

    Crops and flips are part of what the network was trained on: statistics of plain images fit it as little as those of
    other weights.  Mixtures are left out, as in the training of curves and averages.

    Args:
        network: changed in place; without BatchNorm nothing happens, and nothing is drawn.
        split: training images.
        recipe: says how they are cropped, and whether they are mirrored.
        flip: whether a mirrored image keeps its label, where the recipe leaves that to the data.
        generator: source of the order, the crops and the flips.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        return
    seen = recipe.replace(mixup=0.0, cutmix=0.0)
    mirrored = flip if recipe.flip is None else recipe.flip
    order = batches(split, min(_BATCH, len(split)), generator, drop_last=False)
    update_bn((make_batch(split, chosen, seen, mirrored, generator, device).images for chosen in order), network)


@torch.no_grad()
def batch_statistics(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Running means and variances of every BatchNorm after one pass in training mode, as of no earlier batch.

    Args:
        network: left as it is.
        images: float [B, C, H, W].

    Returns:
        The entries of the state that change, on the CPU.
    """
    other = copy.deepcopy(network)
    names = []
    for name, module in other.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            names += [f"{name}.running_mean", f"{name}.running_var"]
            module.momentum = 1.0
            module.train()
    other(images)
    state = other.state_dict()
    return {name: state[name].cpu() for name in names}
