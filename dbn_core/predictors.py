"""Deployable predictors: modules whose forward pass does everything that a prediction costs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from dbn_core.bridge.denoiser import Denoiser
from dbn_core.bridge.sampler import Noise, sample
from dbn_core.nets.resnet import Classifier

# The released evaluation draws its sampler noise from one fixed seed.
_EVALUATION_SEED = 1242300


class Mixture(nn.Module):
    """Several logit networks side by side: images to log-probabilities [M, B, K] of the M networks."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [M, B, K]."""
        return torch.stack([network(images).log_softmax(-1) for network in self.networks])


class FeatureMixture(nn.Module):
    """One source network and several heads on its features at ``at``; the source's own prediction is the first term."""

    def __init__(self, source: Classifier, at: str, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.features, self.head = source.split(at)
        self.heads = nn.ModuleList(heads)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [1 + heads, B, K]; the features are computed once."""
        h = self.features(images)
        return torch.stack([head(h).log_softmax(-1) for head in (self.head, *self.heads)])


class BridgedSource(nn.Module):
    """DBN at inference: one source network, L denoisers on its features and tempered logits.

    Args:
        source: the source member.
        at: block whose output conditions the score networks.
        denoisers: one for each bridge.
        temperature: the source logits are divided by it.
        noise: sampler noise; see :func:`dbn_core.bridge.sampler.sample`.
        include_source: put the source's own prediction in front of the bridges' (off in the paper).
    """

    def __init__(
        self,
        source: Classifier,
        at: str,
        denoisers: Iterable[Denoiser],
        temperature: float,
        noise: Noise = "none",
        include_source: bool = False,
    ) -> None:
        super().__init__()
        self.features, self.head = source.split(at)
        self.denoisers = nn.ModuleList(denoisers)
        self.temperature, self.noise, self.include_source = temperature, noise, include_source

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [L, B, K], or [1 + L, B, K] with the source."""
        h = self.features(images)
        logits = self.head(h)
        generator = None
        if self.noise != "none":
            generator = torch.Generator().manual_seed(_EVALUATION_SEED)
        terms = [logits] if self.include_source else []
        for denoiser in self.denoisers:
            assert isinstance(denoiser, Denoiser)
            terms.append(sample(denoiser, h, logits / self.temperature, self.noise, generator))
        return torch.stack([z.log_softmax(-1) for z in terms])


class DirichletMean(nn.Module):
    """Mean of the Dirichlet with concentrations ``1 + exp(z / tau)``: the predictive of an END2 student."""

    def __init__(self, network: nn.Module, tau: float) -> None:
        super().__init__()
        self.network, self.tau = network, tau

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to log-probabilities [B, K]."""
        log_alpha = nn.functional.softplus(self.network(images) / self.tau)  # log(1 + exp(z / tau))
        return log_alpha.log_softmax(-1)
