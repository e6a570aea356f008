"""A short training loop for scores; what it minimises, and on which draws, is a function of the caller's.

>>> import torch
>>> from dbn_core.generative.diffusion.loss import training_loss
>>> from dbn_core.generative.diffusion.mixture import ring
>>> from dbn_core.generative.diffusion.networks import ScoreMLP
>>> from dbn_core.generative.diffusion.process import ScoreModel
>>> from dbn_core.generative.diffusion.schedules import VP
>>> generator, truth = torch.Generator().manual_seed(0), ring(modes=8)
>>> network = ScoreMLP(2, width=32)
>>> network.reset(generator)
>>> model = ScoreModel(network, VP(), prediction="noise")
>>> losses = fit(model, lambda: training_loss(model, VP(), truth.sample(128, generator), generator), updates=60)
>>> sum(losses[-10:]) < sum(losses[:10])
True
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dbn_core.errors import TrainingDivergedError


def fit(
    module: nn.Module,
    loss: Callable[[], torch.Tensor],
    updates: int,
    learning_rate: float = 2e-3,
    ema_decay: float | None = None,
) -> list[float]:
    """Minimise ``loss()`` over the module's weights by Adam with a cosine to zero; they are changed in place.

    Args:
        module: in evaluation mode on return.
        loss: a scalar of a fresh batch.
        ema_decay: decay of an exponential moving average, whose weights are kept then.

    Returns:
        The losses.

    Raises:
        TrainingDivergedError: a loss became NaN or infinite.
    """
    module.train()
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, updates))
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(ema_decay)) if ema_decay else None
    losses = []
    for update in range(updates):
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if average is not None:
            average.update_parameters(module)
        losses.append(float(value.detach()))
        if not math.isfinite(losses[-1]):
            raise TrainingDivergedError(f"The loss is {losses[-1]} at update {update}: lower the learning rate.")
    if average is not None:
        module.load_state_dict(average.module.state_dict())
    module.eval()
    return losses
