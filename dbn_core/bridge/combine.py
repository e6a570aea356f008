"""Several bridges at one common state: score networks aggregated at every step (arXiv 2601.11444), not predictions.

With one step and the arithmetic rule this is the softmax of the mean of the bridges' logits; with more steps it differs
from it through the state that all share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dbn_core.bridge.sampler import Estimator
from dbn_core.generative.aggregate import Rule, State, dominant, geometric, median

# What moves all classes by the same amount does not come out of these as such.
_SHIFTING = (dominant, geometric, median)


class Joint:
    """Several denoisers of one schedule as one estimator, for one batch: ``Z_0^ = Z_n - rule(Z_n - Z_0^(m))``.

    Args:
        denoisers: M of them.
        rule: aggregates the displacements [M, B, K].
        state: what ``rule.start`` gave for this batch.
    """

    def __init__(self, denoisers: Sequence[Estimator], rule: Rule, state: State) -> None:
        self.denoisers, self.rule, self.state = denoisers, rule, state
        self.steps, self.variances = denoisers[0].steps, denoisers[0].variances

    def __call__(self, features: Any, z: torch.Tensor, n: int) -> torch.Tensor:
        """Estimate of Z_0 [B, K] from Z_n at one common step n; centred where the rule may have moved its mean."""
        moves = torch.stack([z - denoiser(features, z, n) for denoiser in self.denoisers])
        estimate = z - self.rule(moves, self.state, n)
        return estimate - estimate.mean(-1, keepdim=True) if self.rule.function in _SHIFTING else estimate
