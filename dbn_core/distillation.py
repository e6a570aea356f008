"""Losses of ensemble distillation (ED) and ensemble distribution distillation with proxy targets (END2).

Shapes: student logits [B, K]; teacher logits [M, B, K].
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def ed_loss(
    student: torch.Tensor,
    teachers: torch.Tensor,
    tau: float = 4.0,
    alpha: float = 1.0,
    labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """``(1 - alpha) CE(labels) + alpha tau^2 mean_i CE(softmax(z_i / tau), softmax(z / tau))`` (Hinton et al., 2015).

    Args:
        labels: int64 [B], or the probabilities [B, K] of mixed labels; needed when ``alpha < 1``.
    """
    target = (teachers / tau).softmax(-1).mean(0)
    loss = alpha * tau**2 * F.cross_entropy(student / tau, target)
    if alpha < 1:
        if labels is None:
            raise ValueError("alpha < 1 mixes the labels in: give labels")
        loss = loss + (1 - alpha) * F.cross_entropy(student, labels)
    return loss


def proxy_dirichlet(teachers: torch.Tensor, tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean probabilities [B, K] and proxy Dirichlet precision [B] of the teachers (Ryabinin et al., 2021, eq. 11).

    The precision is ``(K - 1) / (2 sum_c pbar_c (ln pbar_c - mean_i ln p_ic))``: large where the teachers agree.
    """
    log_p = (teachers / tau).log_softmax(-1)
    log_mean = log_p.logsumexp(0) - math.log(len(log_p))  # finite where the mean itself would underflow
    mean = log_mean.exp()
    disagreement = (mean * (log_mean - log_p.mean(0))).sum(-1)
    # Equal teachers have zero disagreement up to rounding; the bound keeps the precision finite in float32.
    return mean, (mean.shape[-1] - 1) / (2 * disagreement.clamp_min(1e-6))


def end2_loss(student: torch.Tensor, teachers: torch.Tensor, tau: float = 2.0) -> torch.Tensor:
    """Reverse KL of the student's Dirichlet to ``Dir(1 + pbar * sum(beta))`` over ``sum(beta)``, batch mean.

    The student's concentrations are ``alpha_c = 1 + exp(z_c / tau)``, the target's ``beta_c = 1 + pbar_c * precision``:
    ``-sum_c pbar_c (psi(alpha_c) - psi(alpha_0)) + KL(Dir(alpha) || Dir(1)) / sum_c beta_c``.
    """
    mean, precision = proxy_dirichlet(teachers, tau)
    alpha = 1 + (student / tau).exp()
    total = alpha.sum(-1)
    expected_log = torch.digamma(alpha) - torch.digamma(total)[:, None]
    reconstruction = -(mean * expected_log).sum(-1)
    classes = student.shape[-1]
    to_flat = (
        torch.lgamma(total)
        - torch.lgamma(alpha).sum(-1)
        - torch.lgamma(torch.tensor(float(classes)))
        + ((alpha - 1) * expected_log).sum(-1)
    )
    return (reconstruction + to_flat / (classes + precision)).mean()
