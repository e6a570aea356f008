"""The one training loop: every network of the suite is trained by it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dbn_core.data.augment import batches
from dbn_core.data.batch import Batch, make_batch
from dbn_core.data.dataset import Split
from dbn_core.data.views import Views
from dbn_core.errors import TrainingDivergedError, TrainingStoppedError
from dbn_core.nets.precision import full_precision
from dbn_core.rng import GlobalState
from dbn_core.tensors import check_storable, snapshot
from dbn_core.train.checkpoint import (
    load_optimizer_tensors,
    optimizer_tensors,
    read_checkpoint,
    write_checkpoint,
)
from dbn_core.train.monitor import Monitor, Progress
from dbn_core.train.recipe import Recipe

# Seconds between checkpoints: short enough to lose little, long enough to cost nothing.
CHECKPOINT_SECONDS = 30.0
# Seconds between two calls of the monitor.
MONITOR_SECONDS = 1.0


@dataclass
class TrainLog:
    """Length, cost and losses of a training run."""

    epochs: int = 0
    steps: int = 0
    examples: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    best_epoch: int | None = None
    history: list[dict[str, float]] = field(default_factory=list)


def learning_rate(step: int, total: int, warmup: int, recipe: Recipe) -> float:
    """Linear warm-up from 1 % of the peak, then a cosine to zero over the remaining steps, or a constant rate.

    With ``cosine_length`` above 1 the cosine is longer than the run by that factor, so that the run ends above zero.
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
    counters: dict[str, int] | None = None,
    monitor: Monitor | None = None,
    run_name: str = "training",
) -> TrainLog:
    """Train ``module`` in place by the recipe; afterwards it has the weights to keep and is in evaluation mode.

    The checkpoint includes the global generators, from which ``step`` and ``module`` may draw (dropout).  The caller
    seeds them and makes sure that ``evaluate`` does not draw from them (:func:`dbn_core.rng.seeded`).

    Args:
        module: its trainable parameters are optimised; it is put into training mode.
        step: maps a :class:`Batch` to a scalar loss; runs under autocast if the recipe says bf16.
        split: training images and labels.
        flip: whether to flip images if the recipe leaves that to the data.
        generator: source of the order, the augmentation and mixup; ``step`` may draw from it, too.
        views: take the images from these views, one view per epoch, instead of augmenting online.
        evaluate: validation accuracy and NLL of a module; required unless ``recipe.keep`` is ``last``.
        checkpoint: file to resume from, which is written every half minute, also within an epoch.  The caller removes
            it after storing the result.  A damaged one, or one of another module or recipe, is ignored.
        counters: numbers that ``step`` counts; the checkpoint includes them.
        monitor: receives the progress and may stop the training.
        run_name: name of the run in error messages.

    Raises:
        TrainingDivergedError: the loss became NaN or infinite.
        TrainingStoppedError: the monitor stopped the training; the checkpoint is written.
        PluginError: the module has state that cannot be stored in a checkpoint.
    """
    if checkpoint:
        check_storable(module.state_dict())  # fail now rather than after half a minute
    module.to(device).to(memory_format=torch.channels_last)
    optimizer, log, watch = make_optimizer(module, recipe), TrainLog(), monitor or Monitor()
    average = None
    if recipe.ema_decay:
        average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
    state = _State(module, optimizer, average, generator, recipe, device, log, {} if counters is None else counters)
    if checkpoint and (found := read_checkpoint(checkpoint)) and state.fits(*found):
        state.restore(*found)
    kept = average.module if average is not None else module
    batch_size = min(recipe.batch_size, len(split))
    per_epoch = max(1, len(split) // recipe.batch_size)
    total, warmup = recipe.epochs * per_epoch, round(recipe.warmup_epochs * per_epoch)
    do_flip = flip if recipe.flip is None else recipe.flip
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
    started = last_saved = last_seen = time.monotonic()
    before = log.seconds

    def save() -> None:
        log.seconds = before + time.monotonic() - started
        if checkpoint:
            state.save(checkpoint)

    def progress(loss: float, ends_epoch: bool = False) -> Progress:
        scores = (
            {k.removeprefix("validation_"): v for k, v in log.history[-1].items() if "_" in k} if ends_epoch else {}
        )
        rate = optimizer.param_groups[0]["lr"]
        return Progress(run_name, log.epochs, recipe.epochs, log.steps / total, loss, rate, ends_epoch, scores)

    for epoch in range(log.epochs, recipe.epochs):
        module.train()
        for indices in state.order(split, batch_size):
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
            state.losses.append(full_precision(loss.detach()))
            log.steps += 1
            log.examples += len(batch)
            now = time.monotonic()
            if now - last_seen > MONITOR_SECONDS:
                last_seen, current = now, float(state.losses[-1])
                watch.update(progress(current))
                stop = watch.should_stop()
                # Weights of a diverged training must not replace the last checkpoint.
                if math.isfinite(current) and (stop or now - last_saved > CHECKPOINT_SECONDS):
                    save()
                    last_saved = time.monotonic()
                if stop:
                    raise TrainingStoppedError(
                        f"{run_name} was stopped: run it again to resume it from its checkpoint."
                    )
        log.loss = float(torch.stack(state.losses).mean())
        if not math.isfinite(log.loss):
            raise TrainingDivergedError(
                f"{run_name}: the loss became {log.loss} in epoch {epoch + 1} of {recipe.epochs}: "
                f"lower its learning rate (now {recipe.lr:g}) or add warm-up epochs."
            )
        log.epochs = epoch + 1
        log.history.append({"epoch": epoch + 1, "loss": log.loss})
        state.ends_epoch()
        if evaluate is not None and (recipe.keep != "last" or watch.wants_validation()):
            accuracy, nll = evaluate(kept.eval())
            log.history[-1] |= {"validation_acc": accuracy, "validation_nll": nll}
            score = accuracy if recipe.keep == "best_accuracy" else -nll
            if recipe.keep != "last" and not math.isnan(score) and (state.best is None or score > state.best[0]):
                state.best = score, snapshot(kept.state_dict())
                log.best_epoch = epoch + 1
        watch.update(progress(log.loss, ends_epoch=True))
        if checkpoint and time.monotonic() - last_saved > CHECKPOINT_SECONDS:
            save()
            last_saved = time.monotonic()
    log.seconds = before + time.monotonic() - started
    if average is not None:
        module.load_state_dict(average.module.state_dict())
    if state.best is not None:
        module.load_state_dict(state.best[1])
    module.eval()
    return log


@dataclass
class _State:
    """State of a training between two steps, as a checkpoint stores it."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    generator: torch.Generator
    recipe: Recipe
    device: torch.device
    log: TrainLog
    counters: dict[str, int]
    best: tuple[float, dict[str, torch.Tensor]] | None = None
    losses: list[torch.Tensor] = field(default_factory=list)  # of the steps of the current epoch
    _begin: torch.Tensor | None = None  # state of the generator at the beginning of the current epoch
    _resume: torch.Tensor | None = None  # state of the generator at which to resume within an epoch

    def order(self, split: Split, batch_size: int) -> Iterator[torch.Tensor]:
        """The remaining batches of the current epoch, equal to those of an uninterrupted run."""
        if self._resume is not None:
            assert self._begin is not None
            self.generator.set_state(self._begin)
        self._begin = self.generator.get_state()
        left = batches(split, batch_size, self.generator, drop_last=True)
        if self._resume is not None:
            self.generator.set_state(self._resume)
            self._resume = None
        return islice(left, len(self.losses), None)

    def ends_epoch(self) -> None:
        self.losses = []

    def save(self, path: Path) -> None:
        draws = GlobalState.read(self.device)
        groups = {
            "module": self.module.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
            "generator": {"state": self.generator.get_state()},
            "average": self.average.state_dict() if self.average is not None else {},
            "best": self.best[1] if self.best else {},
            "epoch": {"begin": self._begin, "losses": torch.stack(self.losses)} if self.losses else {},
            "draws": draws.tensors,
        }
        meta = {"log": vars(self.log), "best": self.best[0] if self.best else None, "counters": self.counters}
        meta |= {"draws": draws.others, "recipe": self.recipe.key()}
        write_checkpoint(path, groups, meta)

    def fits(self, groups: dict[str, dict[str, torch.Tensor]], meta: dict[str, Any]) -> bool:
        """Whether a checkpoint has this recipe and the shapes of this module; the method may have been edited."""
        wanted = {"module": self.module.state_dict()}
        wanted |= {"average": self.average.state_dict()} if self.average is not None else {}
        return meta.get("recipe") == self.recipe.key() and all(
            _shapes(groups.get(group, {})) == _shapes(tensors) for group, tensors in wanted.items()
        )

    def restore(self, groups: dict[str, dict[str, torch.Tensor]], meta: dict[str, Any]) -> None:
        self.module.load_state_dict(groups["module"])
        load_optimizer_tensors(self.optimizer, groups.get("optimizer", {}))
        self.generator.set_state(groups["generator"]["state"])
        if self.average is not None:
            self.average.load_state_dict(groups["average"])
        for name, value in meta["log"].items():
            setattr(self.log, name, value)
        self.counters |= meta["counters"]
        if meta["best"] is not None:
            self.best = meta["best"], groups["best"]
        if within := groups.get("epoch"):
            self.losses, self._begin = list(within["losses"]), within["begin"]
            self._resume = self.generator.get_state()
        GlobalState(groups["draws"], meta["draws"]).write(self.device)


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
