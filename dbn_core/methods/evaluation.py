"""Predictions on a whole split, and their accuracy and NLL."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dbn_core.data.augment import to_float
from dbn_core.data.dataset import Split

EVALUATION_BATCH = 500


@torch.no_grad()
def predict_split(
    predictor: Callable[[torch.Tensor], torch.Tensor], split: Split, device: torch.device, batch: int = EVALUATION_BATCH
) -> torch.Tensor:
    """Outputs of ``predictor`` on all images of a split, in order, on the CPU; batched along the second last axis."""
    pieces = []
    for images in split.images.split(batch):
        x = to_float(images.to(device)).contiguous(memory_format=torch.channels_last)
        pieces.append(predictor(x).float().cpu())
    return torch.cat(pieces, -2)


def evaluate_split(
    predictor: Callable[[torch.Tensor], torch.Tensor], split: Split, device: torch.device
) -> tuple[float, float]:
    """Accuracy and NLL of logits or log-probabilities [B, K] on a split."""
    log_probs = predict_split(predictor, split, device).double().log_softmax(-1)
    nll = -log_probs.gather(1, split.labels[:, None]).mean()
    return float((log_probs.argmax(1) == split.labels).double().mean()), float(nll)
