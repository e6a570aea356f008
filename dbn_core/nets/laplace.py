"""Last-layer Laplace approximation with Kronecker factors: a Gaussian over the weights of a network's linear head.

For pooled features phi [D + 1], a one appended, and head weights W [K, D + 1], the Gauss-Newton matrix is approximated
by G (x) A with ``G = sum_n diag(p_n) - p_n p_n^T`` and ``A = mean_n phi_n phi_n^T``.  With the eigenvectors U and
eigenvalues g, a of the two, and a prior of precision delta, the logits at x are Gaussian with mean ``W phi`` and

    V = U_g diag(v) U_g^T,    v_k = sum_j (U_a^T phi)_j^2 / (g_k a_j + delta).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from dbn_core.nets.network import Network

Link = Literal["pairwise", "probit"]


def with_one(h: torch.Tensor) -> torch.Tensor:
    """What the linear head reads, with a one for its bias: [B, D] to [B, D + 1]."""
    return torch.cat([h, torch.ones_like(h[:, :1])], 1)


def kronecker_factors(phi: torch.Tensor, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Eigenvectors and eigenvalues ``U_a``, ``a`` of A and ``U_g``, ``g`` of G, float64.

    Args:
        phi: features [N, D + 1] of the training images.
        logits: [N, K] of the same.
    """
    phi, p = phi.double(), logits.double().softmax(-1)
    a, u_a = torch.linalg.eigh(phi.T @ phi / len(phi))
    g, u_g = torch.linalg.eigh(torch.diag(p.sum(0)) - p.T @ p)
    return {"a": a.clamp_min(0), "U_a": u_a, "g": g.clamp_min(0), "U_g": u_g}


def linked_log_probs(mean: torch.Tensor, v: torch.Tensor, u_g: torch.Tensor, link: Link) -> torch.Tensor:
    """Log-probabilities [B, K] of Gaussian logits with a mean [B, K] and the covariance ``U_g diag(v) U_g^T``.

    ``probit`` divides each logit by ``sqrt(1 + pi / 8 V_kk)``.  ``pairwise`` uses the variances of differences,
    ``p_k ~ 1 / sum_j exp(-(mu_k - mu_j) / sqrt(1 + pi / 8 (V_kk + V_jj - 2 V_kj)))``, which like a softmax is blind to
    what all logits have in common.
    """
    if link == "probit":
        return (mean / (1 + math.pi / 8 * (v @ u_g.square().T)).sqrt()).log_softmax(-1)
    classes = len(u_g)
    differences = (u_g[:, None] - u_g[None]).square()  # [K, K, K]: V_kk + V_jj - 2 V_kj is linear in v
    spread = (v @ differences.flatten(0, 1).T).unflatten(1, (classes, classes))
    gaps = (mean[:, :, None] - mean[:, None, :]) / (1 + math.pi / 8 * spread).sqrt()
    return (-(-gaps).logsumexp(2)).log_softmax(-1)


class LastLayerLaplace(nn.Module):
    """A network whose head has a Gaussian over its weights: images to log-probabilities [B, K].

    Args:
        network: trained; its logits are the output of a linear layer.
        factors: of :func:`kronecker_factors`.
        precision: delta, of the prior.
        link: see :func:`log_likelihood`.
    """

    U_a: torch.Tensor
    U_g: torch.Tensor
    variances: torch.Tensor

    def __init__(self, network: Network, factors: dict[str, torch.Tensor], precision: float, link: Link) -> None:
        super().__init__()
        self.features, self.linear = network.last_layer()
        self.link: Link = link
        variances = 1 / (torch.outer(factors["a"], factors["g"]) + precision)
        stored = {"U_a": factors["U_a"], "U_g": factors["U_g"], "variances": variances}
        for name, tensor in stored.items():
            self.register_parameter(name, nn.Parameter(tensor.float(), requires_grad=False))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, K]."""
        phi = with_one(self.features(images))
        mean = self.linear(phi[:, :-1])
        return linked_log_probs(mean, (phi @ self.U_a).square() @ self.variances, self.U_g, self.link)
