"""B-DENSE on a bridge: one student step learns K states of its teacher's path, not only the end (arXiv 2602.15971).

The student takes one step for the N = K m steps of its teacher.  Its last linear layer is widened K-fold.  Branch
k = 1 ... K outputs o_k, and its state

    Z^_k = Z_1 - A_k scale o_k,    A_k = 1 - sigma^2(N - k m) / sigma^2(N)

is the bridge's mean after k m teacher steps, so that copies of the teacher's last layer start close to all targets.
The loss is a weighted sum over branches; a prediction uses branch K alone, for which A_K = 1.  The paper (images,
diffusion from noise) applies one full-step update to all branches.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dbn_core.bridge.denoiser import Denoiser, Loss, kl_to


class BranchedNetwork(nn.Module):
    """A score network with K copies of its last linear layer; its forward pass uses the last one.

    Args:
        network: has its last layer in ``out``, of C units; it is copied.
        branches: K.
    """

    def __init__(self, network: Any, branches: int) -> None:
        super().__init__()
        self.network, self.count = copy.deepcopy(network), branches
        out = network.out
        self.network.out = _linear(out.weight.repeat(branches, 1), out.bias.repeat(branches))

    def branches(self, features: Any, z: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        """Outputs of all branches, [B, K, C], from Z [B, C] at times tau [B]."""
        return self.network(features, z, tau).unflatten(1, (self.count, -1))

    def forward(self, features: Any, z: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        """Output of branch K, [B, C]."""
        return self.branches(features, z, tau)[:, -1]

    @torch.no_grad()
    def export(self) -> Any:
        """The network with branch K alone: the original architecture, with the same outputs."""
        network: Any = copy.deepcopy(self.network)
        units = network.out.out_features // self.count
        network.out = _linear(network.out.weight[-units:], network.out.bias[-units:])
        return network


@torch.no_grad()
def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], len(weight), device=weight.device, dtype=weight.dtype)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


def growing_weights(branches: int, growth: float = 0.0) -> torch.Tensor:
    """``w_k ~ exp(growth (k / K - 1))``, float32 [K] with sum 1: 0 is uniform, infinity the ordinary endpoint loss.

    Ours: the paper searches its weights, and does not give the curve that it fits to them.
    """
    return (growth * (torch.arange(1, branches + 1).double() / branches - 1)).softmax(0).float()


def branch_steps(steps: int, branches: int) -> list[int]:
    """Teacher indices N - k m of the states that branches 1 ... K learn.

    >>> branch_steps(steps=4, branches=2)
    [2, 0]

    Raises:
        ValueError: K does not divide N.
    """
    stride, rest = divmod(steps, branches)
    if rest:
        raise ValueError(f"{branches} branches do not divide a teacher's {steps} steps")
    return [steps - k * stride for k in range(1, branches + 1)]


def branch_fractions(variances: torch.Tensor, branches: int) -> torch.Tensor:
    """A_k, float64 [K], from the teacher's sigma_n^2 [N + 1]."""
    return 1 - variances[branch_steps(len(variances) - 1, branches)] / variances[-1]


def branch_loss(
    outputs: torch.Tensor,
    scale: torch.Tensor,
    z: torch.Tensor,
    targets: torch.Tensor,
    z_0: torch.Tensor,
    fractions: torch.Tensor,
    weights: torch.Tensor,
    alpha: float = 0.5,
    loss: Loss = "mse",
) -> torch.Tensor:
    """``sum_{k<K} w_k d(Z^_k, X_k) + w_K [alpha d(Z^_K, X_K) + (1 - alpha) d(Z^_K, Z_0)]``, mean over the batch.

    Branch K, which is kept, learns from the true ensemble with the share 1 - alpha for any number of branches and any
    weights, as the student of plain distillation does, so that students with and without branches differ in the
    branches alone.  Distances are in the unit of the network's outputs, as in (4) and (6): states are divided by
    ``scale``.  With K = 1 this is equation (6), bit for bit.

    Args:
        outputs: of the branches, [B, K, C].
        scale: of the student, [B, 1].
        z: Z_1, [B, C].
        targets: X_k, states of the teacher, [B, K, C].
        z_0: the true ensemble logits, [B, C].
        fractions: A_k, [K].
        weights: w_k, [K], with sum 1.
        loss: ``mse`` sums squares over classes; ``kl`` is KL(softmax(X_k) || softmax(Z^_k)).
    """
    shares = fractions.to(outputs)[:, None]
    if loss == "kl":
        moves = scale[:, None] * outputs
        states = z[:, None] - shares * moves
        to_teacher = torch.stack([kl_to(states[:, k], targets[:, k]) for k in range(len(weights))])
        to_ensemble = kl_to(z - moves[:, -1], z_0)
        last = alpha * to_teacher[-1] + (1 - alpha) * to_ensemble
        return torch.dot(weights.to(outputs), torch.stack([*to_teacher[:-1], last]))
    to_teacher = torch.square(shares * outputs - (z[:, None] - targets) / scale[:, None]).sum(2)
    to_ensemble = torch.square(outputs[:, -1] - (z - z_0) / scale).sum(1)
    last = alpha * to_teacher[:, -1] + (1 - alpha) * to_ensemble
    return (torch.cat([to_teacher[:, :-1], last[:, None]], 1) @ weights.to(outputs)).mean()


def branch_states(student: Denoiser, features: Any, z: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
    """Z^_k of all branches of a one-step student, [B, K, C], with its A_k [K]."""
    assert isinstance(student.network, BranchedNetwork)
    outputs = student.network.branches(features, z, z.new_ones(len(z)))
    return z[:, None] - float(student.scales[1]) * fractions.to(z)[:, None] * outputs


def curvature(states: Sequence[torch.Tensor] | torch.Tensor, variances: torch.Tensor) -> float:
    """kappa: largest distance of a trajectory's states from the straight line between its ends, relative to its length.

    ``mean over examples of max_n || Z_n - mean_n || / || Z_0 - Z_N ||``, where mean_n is the
    bridge's mean between Z_N and Z_0.  Near 0 the intermediate states add little information to the end.

    Args:
        states: Z_n for n = N ... 0, each [B, C].
        variances: sigma_n^2 for n = 0 ... N.
    """
    start, end = states[0].double(), states[-1].double()
    length = (end - start).norm(dim=-1).clamp_min(1e-12)
    shares = (1 - variances / variances[-1]).flip(0).tolist()
    off = [(z.double() - start - a * (end - start)).norm(dim=-1) for a, z in zip(shares, states, strict=True)]
    return float((torch.stack(off).amax(0) / length).mean()) if len(start) else math.nan


def branched(denoiser: Denoiser, branches: int) -> Denoiser:
    """The denoiser with a :class:`BranchedNetwork` as its network."""
    return _with_network(denoiser, BranchedNetwork(denoiser.network, branches))


def exported(denoiser: Denoiser) -> Denoiser:
    """The denoiser with branch K alone, in evaluation mode; it costs what a plain denoiser costs."""
    assert isinstance(denoiser.network, BranchedNetwork)
    return _with_network(denoiser, denoiser.network.export()).eval()


def _with_network(denoiser: Denoiser, network: nn.Module) -> Denoiser:
    changed = Denoiser(network, denoiser.variances)
    changed.scales = denoiser.scales
    return changed
