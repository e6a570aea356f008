"""Fit a method on a few small images outside the harness, and build its predictor."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

import baselines as baselines  # adds the methods to the table
from dbn_core.data.dataset import Dataset, Split
from dbn_core.methods.context import FitContext, PredictContext, freeze
from dbn_core.methods.registry import parse_method
from dbn_core.nets import NetworkSpec
from dbn_core.nets.init import initialise_
from dbn_core.nets.resnet import Classifier
from dbn_core.rng import generator
from dbn_core.train.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05, crop_pad=1, weight_decay=2e-3, nesterov=True)
RECIPE_PLAIN = RECIPE.replace(crop_pad=0)


@functools.lru_cache
def data(flip: bool = False) -> Dataset:
    """Four classes of 8 x 8 images, of which a bright quadrant tells the class."""

    def split(count: int, seed: int) -> Split:
        images, labels = (
            torch.randint(0, 100, (count, 1, 8, 8), generator=generator(seed=seed)),
            torch.arange(count) % 4,
        )
        for k in range(4):
            images[labels == k, :, k // 2 * 4 : k // 2 * 4 + 4, k % 2 * 4 : k % 2 * 4 + 4] += 60
        return Split(images.to(torch.uint8), labels)

    cut = {"train": split(64, 1), "validation": split(40, 2), "test": split(12, 3)}
    return Dataset(name="noise", title="Noise", classes=tuple("abcd"), mean=(0.5,), std=(0.3,), flip=flip, **cut)


def spec(norm: str = "frn", channels: int = 4) -> NetworkSpec:
    return NetworkSpec(name="resnet8", width=1, channels=channels, norm=norm, bias=norm == "frn")


def images(count: int = 6) -> torch.Tensor:
    return data().test.images[:count].float() / 255


def context(method_axes: str = "part", norm: str = "frn", flip: bool = False, **changes: Any) -> FitContext:
    given: dict[str, Any] = {"recipe": RECIPE, "student_epochs": 2} | changes
    return FitContext(data=data(flip), spec=spec(norm), device=CPU, axes={"part": method_axes}, **given)


@functools.lru_cache
def trained(seed: int, norm: str) -> Classifier:
    where = context(f"member-{seed}", norm)
    network = where.new_network()

    def step(batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(network(batch.images), batch.labels)

    where.train(network, step, RECIPE.replace(epochs=4))
    return freeze(network)


def fit(
    method: str,
    size: int,
    norm: str = "frn",
    member: Any = trained,
    contexts: list[FitContext] | None = None,
    axes: str | None = None,
    **changes: Any,
) -> dict[str, dict[str, torch.Tensor]]:
    """States of all parts of one size, by name, whose draws differ unless ``axes`` is given.

    ``contexts`` takes up those of the parts.
    """
    built, parts = parse_method(method), dict[str, dict[str, torch.Tensor]]()
    for part in built.parts(size):
        given = {"members": [member(position, norm) for position in part.members]} | changes
        where = context(axes or part.name, norm, parts=parts, **given)
        made = built.fit(part, where)
        state = made.state_dict() if isinstance(made, nn.Module) else made
        parts[part.name] = {name: tensor.clone() for name, tensor in state.items()}
        if contexts is not None:
            contexts.append(where)
    return parts


def predictor(
    method: str, size: int, parts: Any = None, norm: str = "frn", flip: bool = False, member: Any = trained
) -> nn.Module:
    built = parse_method(method)
    members = {position: member(position, norm) for position in built.members(size)}
    shared: dict[str, Any] = {"data": data(flip), "spec": spec(norm), "device": CPU, "axes": {}}
    return freeze(built.predictor(size, PredictContext(**shared, members=members, parts=parts or {})))


def fresh(norm: str = "frn", classes: int = 4, seed: int = 0, **changes: Any) -> Classifier:
    network = Classifier(spec(norm).model_copy(update=changes), classes, 1, (0.5,), (0.3,))
    initialise_(network, generator(seed=seed))
    return freeze(network)
