"""Variance clock of the bridge: how much noise the reference process has gathered by time tau.

Time tau runs from 0 (ensemble side, Z_0) to 1 (source side, Z_1).  The reference process dZ = sqrt(beta(tau)) dW has
variance sigma^2(tau) after time tau and S = sigma^2(1) = (beta_0 + beta_1) / 2 in all.
"""

from __future__ import annotations

import torch


def variance(tau: torch.Tensor, beta_0: float, beta_1: float) -> torch.Tensor:
    """sigma^2(tau) in float64, for tau in [0, 1] of any shape: the rate goes from beta_0 at 0 to beta_1 at 1.

    With beta_0 = beta_1, as in every published run, it is beta * tau.
    """
    tau = tau.double()
    return 0.5 * (beta_1 - beta_0) * tau**2 + beta_0 * tau


def step_variances(steps: int, beta_0: float, beta_1: float) -> torch.Tensor:
    """sigma_n^2 for n = 0 ... steps, float64 [steps + 1]; entry 0 is zero."""
    return variance(torch.arange(steps + 1, dtype=torch.float64) / steps, beta_0, beta_1)
