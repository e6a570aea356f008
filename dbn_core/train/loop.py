"""The one training loop: every network of the suite is trained by it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dbn_core.data.augment import batches
from dbn_core.data.batch import Batch, make_batch
from dbn_core.data.dataset import Split
from dbn_core.data.views import Views
from dbn_core.errors import TrainingDivergedError
from dbn_core.train.checkpoint import (
    load_optimizer_tensors,
    optimizer_tensors,
    read_checkpoint,
    write_checkpoint,
)
from dbn_core.train.recipe import Recipe

# Seconds between checkpoints: short enough to lose little, long enough to cost nothing.
CHECKPOINT_SECONDS = 30.0


@dataclass
class TrainLog:
    """What a training run did and cost."""

    epochs: int = 0
    steps: int = 0
    examples: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    best_epoch: int | None = None
    history: list[dict[str, float]] = field(default_factory=list)


def learning_rate(step: int, total: int, warmup: int, recipe: Recipe) -> float:
    """Linear warm-up from 1 % of the peak, then cosine to zero over what is left (or constant).

    With ``cosine_length`` above 1 the cosine is that much longer than the run, which so ends above zero.
    """
    if step < warmup:
        return recipe.lr * (0.01 + 0.99 * step / warmup)
    if recipe.schedule == "constant":
        return recipe.lr
    progress = (step - warmup) / max(1, total * recipe.cosine_length - warmup)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW over the trainable parameters."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            recipe.lr,
            recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
            foreach=True,
        )
    return torch.optim.AdamW(parameters, recipe.lr, weight_decay=recipe.weight_decay, foreach=True)


def train(
    module: nn.Module,
    step: Callable[[Batch], torch.Tensor],
    split: Split,
    recipe: Recipe,
    *,
    flip: bool,
    generator: torch.Generator,
    device: torch.device,
    views: Views | None = None,
    evaluate: Callable[[nn.Module], tuple[float, float]] | None = None,
    checkpoint: Path | None = None,
    what: str = "training",
) -> TrainLog:
    """Train ``module`` in place by the recipe; on return it holds the weights to keep and is in evaluation mode.

    Args:
        module: its trainable parameters are optimised; it is put into training mode.
        step: maps a :class:`Batch` to a scalar loss.
        split: training images and labels.
        flip: whether mirrored images are allowed, when the recipe leaves it to the data.
        generator: drives order, augmentation and mixup, and whatever ``step`` draws from it.
        views: take the images from these views, one view an epoch, instead of augmenting online.
        evaluate: validation (accuracy, NLL) of a module; needed when ``recipe.keep`` is not ``last``.
        checkpoint: file to resume from and to write to every half minute; removed at the end.
        what: name of the run in error messages.

    Raises:
        TrainingDivergedError: the loss became NaN or infinite.
    """
    module.to(device).to(memory_format=torch.channels_last)
    optimizer, log = make_optimizer(module, recipe), TrainLog()
    average = AveragedModel(module, multi_avg_fn=_ema(recipe.ema_decay), use_buffers=True) if recipe.ema_decay else None
    kept = average.module if average is not None else module
    best: tuple[float, dict[str, torch.Tensor]] | None = None
    if checkpoint and (found := read_checkpoint(checkpoint)):
        best = _restore(*found, module, optimizer, average, generator, log)
    per_epoch = max(1, len(split) // recipe.batch_size)
    total, warmup = recipe.epochs * per_epoch, round(recipe.warmup_epochs * per_epoch)
    do_flip = flip if recipe.flip is None else recipe.flip
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
    started = last_saved = time.monotonic()
    before = log.seconds
    for epoch in range(log.epochs, recipe.epochs):
        module.train()
        losses = []
        for indices in batches(split, min(recipe.batch_size, len(split)), generator, drop_last=True):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(log.steps, total, warmup, recipe)
            if views is None:
                batch = make_batch(split, indices, recipe, do_flip, generator, device)
            else:
                batch = views.batch(epoch, indices, device)
            with autocast:
                loss = step(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if average is not None:
                average.update_parameters(module)
            losses.append(loss.detach())
            log.steps += 1
            log.examples += len(batch)
        log.loss = float(torch.stack(losses).mean())
        if not math.isfinite(log.loss):
            raise TrainingDivergedError(
                f"{what}: the loss became {log.loss} in epoch {epoch + 1} of {recipe.epochs}: "
                f"lower its learning rate (now {recipe.lr:g}) or add warm-up epochs."
            )
        log.epochs = epoch + 1
        log.history.append({"epoch": epoch + 1, "loss": log.loss})
        if recipe.keep != "last" and evaluate is not None:
            accuracy, nll = evaluate(kept.eval())
            log.history[-1] |= {"validation_acc": accuracy, "validation_nll": nll}
            score = accuracy if recipe.keep == "best_accuracy" else -nll
            if not math.isnan(score) and (best is None or score > best[0]):
                best = score, {name: value.clone() for name, value in kept.state_dict().items()}
                log.best_epoch = epoch + 1
        if checkpoint and time.monotonic() - last_saved > CHECKPOINT_SECONDS and log.epochs < recipe.epochs:
            log.seconds = before + time.monotonic() - started
            _save(checkpoint, module, optimizer, average, generator, log, best)
            last_saved = time.monotonic()
    if average is not None:
        module.load_state_dict(average.module.state_dict())
    if best is not None:
        module.load_state_dict(best[1])
    module.eval()
    log.seconds = before + time.monotonic() - started
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return log


def _ema(decay: float | None) -> Callable[..., Any] | None:
    return get_ema_multi_avg_fn(decay) if decay is not None else None


def _save(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel | None,
    generator: torch.Generator,
    log: TrainLog,
    best: tuple[float, dict[str, torch.Tensor]] | None,
) -> None:
    groups = {
        "module": module.state_dict(),
        "optimizer": optimizer_tensors(optimizer),
        "generator": {"state": generator.get_state()},
        "average": average.state_dict() if average is not None else {},
        "best": best[1] if best else {},
    }
    write_checkpoint(path, groups, {"log": vars(log), "best": best[0] if best else None})


def _restore(
    groups: dict[str, dict[str, torch.Tensor]],
    meta: dict[str, Any],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel | None,
    generator: torch.Generator,
    log: TrainLog,
) -> tuple[float, dict[str, torch.Tensor]] | None:
    module.load_state_dict(groups["module"])
    load_optimizer_tensors(optimizer, groups.get("optimizer", {}))
    generator.set_state(groups["generator"]["state"])
    if average is not None:
        average.load_state_dict(groups["average"])
    for name, value in meta["log"].items():
        setattr(log, name, value)
    return (meta["best"], groups["best"]) if meta["best"] is not None else None
