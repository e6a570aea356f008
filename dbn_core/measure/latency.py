"""Wall-clock latency of predictors, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# A reference whose quartiles are further apart than this share of its median was disturbed.
NOISY_SPREAD = 0.25


@dataclass(frozen=True)
class Latency:
    """Times of one call in milliseconds, and their ratio to the reference of the same round."""

    p50_ms: float
    p95_ms: float
    ratio: float
    examples_per_s: float
    noisy: bool


@torch.inference_mode()
def measure_latency(
    predictors: Mapping[str, Callable[[torch.Tensor], Any]],
    reference: str,
    images: torch.Tensor,
    repeats: int = 30,
    warmup: int = 3,
) -> dict[str, Latency]:
    """Time all predictors interleaved: one call of each a round, so that a disturbance hits all alike.

    Args:
        predictors: by name; ``reference`` must be among them.
        images: float [B, C, H, W]; B is the batch size of the measurement.
        repeats: rounds that count.
        warmup: rounds that do not.

    Returns:
        For each name the median, the 95th percentile, and the median over rounds of its time divided by the
        reference's time in the same round.
    """
    times: dict[str, list[float]] = {name: [] for name in predictors}
    cuda = images.device.type == "cuda"
    for round_ in range(warmup + repeats):
        for name, predictor in predictors.items():
            if cuda:
                torch.cuda.synchronize(images.device)
            start = time.perf_counter()
            predictor(images)
            if cuda:
                torch.cuda.synchronize(images.device)
            if round_ >= warmup:
                times[name].append(1000 * (time.perf_counter() - start))
    base = np.array(times[reference])
    quartiles = np.percentile(base, [25, 50, 75])
    noisy = bool(quartiles[2] - quartiles[0] > NOISY_SPREAD * quartiles[1])
    result = {}
    for name, values in times.items():
        p50, p95 = np.percentile(values, [50, 95])
        ratio = float(np.median(np.array(values) / base))
        result[name] = Latency(float(p50), float(p95), ratio, 1000 * len(images) / float(p50), noisy)
    return result
