"""How the harness calls methods and trains members: the same functions for workers and for the contract tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from dbn_core.data.dataset import Split
from dbn_core.data.views import Augmentation, Views
from dbn_core.errors import PluginError
from dbn_core.methods.context import FitContext, PredictContext, freeze
from dbn_core.methods.evaluation import EVALUATION_BATCH
from dbn_core.methods.method import Method, Part
from dbn_core.tensors import check_storable
from dbn_core.train.recipe import Recipe


def train_member(context: FitContext) -> nn.Module:
    """A new network of the suite, trained by the recipe of the context."""
    network, draws = context.new_network(), context.generator("train")
    step = context.task.member_step(network, context.recipe, draws)
    context.train(network, step, context.recipe, step_generator=draws)
    return network


def fit_part(method: Method, part: Part, context: FitContext) -> dict[str, torch.Tensor]:
    """The tensors that a method fits for one part.

    Raises:
        PluginError: ``fit`` returns something else than a module or storable tensors by name.
    """
    fitted = method.fit(part, context)
    state = fitted.state_dict() if isinstance(fitted, nn.Module) else fitted
    where = f"Method '{method.name}': fit('{part.name}')"
    if not isinstance(state, Mapping):
        raise PluginError(f"{where} returns {type(state).__name__}: return a module or a mapping of names to tensors.")
    for name in state:
        if not isinstance(name, str):
            raise PluginError(f"{where} returns the name {name!r}: use strings as names.")
    try:
        check_storable(state)
    except PluginError as error:
        raise PluginError(f"{where} returns what cannot be stored: {error}") from error
    return dict(state)


def build_predictor(method: Method, size: int, context: PredictContext) -> nn.Module:
    """The predictor of a method, on the device, frozen.

    Raises:
        PluginError: ``predictor`` does not return a module.
    """
    module = method.predictor(size, context)
    if not isinstance(module, nn.Module):
        raise PluginError(
            f"Method '{method.name}': predictor() returns {type(module).__name__}: return a torch.nn.Module that maps "
            "inputs to predictions."
        )
    frozen: nn.Module = freeze(module.to(context.device))
    return frozen


def make_views(split: Split, recipe: Recipe, flip: bool, count: int, axes: Mapping[str, object]) -> Views:
    """``count`` augmented copies of a split, as the recipe says; ``flip`` where it leaves that to the data."""
    flip = flip if recipe.flip is None else recipe.flip
    return Views(split, Augmentation(recipe.crop_pad, flip, recipe.mixup, recipe.cutmix), count, axes)


@torch.no_grad()
def member_logits(member: nn.Module, views: Views, device: torch.device, precision: str = "fp32") -> torch.Tensor:
    """A member's logits on every view, [V, N, K], in half precision on the CPU."""
    chunks = torch.arange(len(views.split)).split(EVALUATION_BATCH)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")

    def logits(view: int, indices: torch.Tensor) -> torch.Tensor:
        with autocast:
            return member(views.batch(view, indices, device).images).half()

    # TF32 has as many digits as half precision, in which the logits are kept.
    with _tf32():
        return torch.stack([torch.cat([logits(view, part) for part in chunks]) for view in range(views.count)]).cpu()


@contextmanager
def _tf32() -> Iterator[None]:
    """Convolutions of float32 in TF32, where the device has it."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
