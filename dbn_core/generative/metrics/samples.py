"""How near generated samples are to real ones.  Samples and features are [N, D]; distances are in float64.

A Fréchet or kernel distance on the features of a classifier of ours is a *classifier-FD* or *classifier-KD*: it depends
on that classifier, and must not be compared with a published FID or KID.  Estimates are biased by N (not that of
:func:`kernel_distance`): compare at the same N, and with the value of real against real.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> real, same, moved = rng.normal(size=(400, 2)), rng.normal(size=(400, 2)), rng.normal(1.0, size=(400, 2))
>>> for distance in (frechet_distance, kernel_distance, energy_distance):
...     print(distance.__name__, distance(real, same) < 0.05, distance(real, moved) > 0.5)
frechet_distance True True
kernel_distance True True
energy_distance True True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.linalg

if TYPE_CHECKING:
    import torch
    from torch import nn

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_ROWS = 2048  # of a matrix of distances at once
_BLOCK = 64  # rows of a matrix of kernels at once: few enough for the processor's cache


def frechet_distance(first: Array, second: Array) -> float:
    """``|m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))`` of the two samples' means and covariances.

    The trace of the root is the sum of the roots of the eigenvalues of ``A S_2 A`` with A the root of S_1, which is
    symmetric, so that no complex number arises where covariances are singular.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    mean = first.mean(0) - second.mean(0)
    s_1, s_2 = np.atleast_2d(np.cov(first, rowvar=False)), np.atleast_2d(np.cov(second, rowvar=False))
    values, axes = scipy.linalg.eigh(s_1)
    root = (axes * np.sqrt(np.maximum(values, 0))) @ axes.T
    inner = np.linalg.eigvalsh(root @ s_2 @ root)
    cross = np.sqrt(np.maximum(inner, 0)).sum()
    return float(mean @ mean + np.trace(s_1) + np.trace(s_2) - 2 * cross)


def kernel_distance(first: Array, second: Array) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3 (Binkowski et al., 2018)."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)

    def total(x: Array, y: Array) -> float:
        blocks = (x[i : i + _BLOCK] @ y.T / x.shape[1] + 1 for i in range(0, len(x), _BLOCK))
        return float(sum((block * block * block).sum() for block in blocks))  # many times as fast as a power

    def within(x: Array) -> float:
        own = float(((np.square(x).sum(1) / x.shape[1] + 1) ** 3).sum())
        return (total(x, x) - own) / (len(x) * (len(x) - 1))

    return within(first) + within(second) - 2 * total(first, second) / (len(first) * len(second))


def energy_distance(first: Array, second: Array) -> float:
    """``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` with Euclidean norms: zero where the laws agree (Székely and Rizzo, 2013).

    Means are over all pairs, a point with itself included, so that it is never negative but for rounding.
    """
    import torch

    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    centre = first.mean(0)  # distances of many dimensions come from products, which are most exact near the origin
    x, y = torch.from_numpy(first - centre), torch.from_numpy(second - centre)

    def mean(one: torch.Tensor, other: torch.Tensor) -> float:
        total = sum(torch.cdist(rows, other).sum().item() for rows in one.split(_ROWS))
        return total / (len(one) * len(other))

    return 2 * mean(x, y) - mean(x, x) - mean(y, y)


def features(extractor: nn.Module, samples: torch.Tensor, batch_size: int = 512) -> Array:
    """What a module in evaluation mode makes of samples [N, ...], float64 [N, D], without gradients."""
    import torch

    extractor.eval()
    with torch.no_grad():
        rows = [extractor(batch).flatten(1).double().cpu() for batch in samples.split(batch_size)]
    return torch.cat(rows).numpy()
