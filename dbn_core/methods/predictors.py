"""Predictors: modules whose forward pass does all the work of a prediction."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from dbn_core.bridge.denoiser import Denoiser
from dbn_core.bridge.sampler import Noise, sample
from dbn_core.nets.network import Network
from dbn_core.nets.resnet import Classifier

# The released evaluation draws its sampler noise from one fixed seed.
_EVALUATION_SEED = 1242300


class Mixture(nn.Module):
    """M logit networks: images to the log-probabilities [M, B, K] of each."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [M, B, K]."""
        return torch.stack([network(images).log_softmax(-1) for network in self.networks])


class LinearHeads(nn.Module):
    """A network whose last layer is that of M linear heads: images to log-probabilities [M, B, K].

    Args:
        network: [B, C, H, W] to [B, M K], head by head.
        heads: M.
    """

    def __init__(self, network: nn.Module, heads: int) -> None:
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [M, B, K]."""
        logits: torch.Tensor = self.network(images).unflatten(1, (self.heads, -1))
        return logits.transpose(0, 1).log_softmax(-1)


class Tempered(nn.Module):
    """One network, its logits divided by a temperature."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to log-probabilities [B, K]."""
        return (self.network(images) / self.temperature).log_softmax(-1)


class MeanLogits(nn.Module):
    """Several networks whose logits are averaged: images to log-probabilities [B, K]."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, K]."""
        return torch.stack([network(images) for network in self.networks]).mean(0).log_softmax(-1)


class OnViews(nn.Module):
    """Networks on several views of each image: images to log-probabilities [M, B, K], all views of a network in a row.

    Args:
        networks: images to logits.
        views: whether a view is mirrored, and by how many pixels it is moved down and right.  What leaves the image is
            lost and zeros come in, as in the crops of training.
    """

    def __init__(self, networks: Iterable[nn.Module], views: Iterable[tuple[bool, int, int]]) -> None:
        super().__init__()
        self.networks, self.views = nn.ModuleList(networks), list(views)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [M, B, K]."""
        moved = [_moved(images, *view) for view in self.views]
        return torch.stack([network(view).log_softmax(-1) for network in self.networks for view in moved])


def _moved(images: torch.Tensor, mirrored: bool, down: int, right: int) -> torch.Tensor:
    images = images.flip(-1) if mirrored else images
    return nn.functional.pad(images, (right, -right, down, -down)) if down or right else images


class Averaged(nn.Module):
    """The deployed form: a predictor's M terms averaged as probabilities, raw and with a temperature.

    Args:
        predictor: images to log-probabilities [M, B, K] or [B, K].
        temperature: the mean's log-probabilities are divided by it, then normalised again.
    """

    def __init__(self, predictor: nn.Module, temperature: float) -> None:
        super().__init__()
        self.predictor, self.temperature = predictor, temperature

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, C, H, W] to raw and calibrated log-probabilities, [B, K] each."""
        terms = self.predictor(images)
        log_probs = terms if terms.ndim == 2 else terms.logsumexp(0) - math.log(len(terms))
        return log_probs, (log_probs / self.temperature).log_softmax(-1)


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


class PairMixture(nn.Module):
    """Several networks, and heads on the features of every two of them at ``at`` (Bridge Network, type II).

    Every network runs once.  The terms come in the order network 0; network 1, pair 01; network 2, pairs 02 and 12;
    ..., so that those of fewer networks are the first of those of more.

    Args:
        networks: n networks of one architecture.
        at: block whose outputs the heads read.
        heads: one for each pair, in the order 01, 02, 12, 03, ...; each reads the two feature maps concatenated along
            the channels, [B, 2C, H, W].
    """

    def __init__(self, networks: Iterable[Classifier], at: str, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        splits = [network.split(at) for network in networks]
        self.features = nn.ModuleList(features for features, _ in splits)
        self.own_heads = nn.ModuleList(head for _, head in splits)
        self.heads = nn.ModuleList(heads)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [n (n + 1) / 2, B, K]."""
        heads = iter(self.heads)
        maps: list[torch.Tensor] = []
        terms = []
        for features, own_head in zip(self.features, self.own_heads, strict=True):
            h = features(images)
            terms.append(own_head(h))
            terms += [next(heads)(torch.cat((earlier, h), 1)) for earlier in maps]
            maps.append(h)
        return torch.stack([z.log_softmax(-1) for z in terms])


class BridgedSource(nn.Module):
    """DBN at inference: one source network, L denoisers on its features and tempered logits.

    Args:
        source: the source member.
        at: block whose output conditions the score networks.
        denoisers: one for each bridge.
        temperature: the source logits are divided by it; None starts the bridges from N(0, I) instead.
        noise: sampler noise; see :func:`dbn_core.bridge.sampler.sample`.
        own_term: whether the source's own prediction is a term, the first one.
    """

    def __init__(
        self,
        source: Network,
        at: str,
        denoisers: Iterable[Denoiser],
        temperature: float | None,
        noise: Noise = "none",
        own_term: bool = False,
    ) -> None:
        super().__init__()
        self.tap = source.tap(at)
        self.denoisers = nn.ModuleList(denoisers)
        self.temperature, self.noise, self.own_term = temperature, noise, own_term

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [L, B, K], or [1 + L, B, K] with the source's own term; the source runs once."""
        h, logits = self.tap(images)
        generator = None
        if self.noise != "none" or self.temperature is None:
            generator = torch.Generator().manual_seed(_EVALUATION_SEED)
        ends = [logits] if self.own_term else []
        for denoiser in self.denoisers:
            assert isinstance(denoiser, Denoiser)
            start = start_logits(logits, self.temperature, generator)
            ends.append(sample(denoiser, h, start, self.noise, generator))
        return torch.stack([end.log_softmax(-1) for end in ends])


def start_logits(logits: torch.Tensor, temperature: float | None, generator: torch.Generator | None) -> torch.Tensor:
    """Z_T [B, K]: tempered source logits, or draws from N(0, I) when there is no temperature."""
    if temperature is not None:
        return logits / temperature
    return torch.randn(logits.shape, generator=generator).to(logits)


class DirichletMean(nn.Module):
    """Mean of the Dirichlet with concentrations ``1 + exp(z / tau)``: the predictive of an END2 student."""

    def __init__(self, network: nn.Module, tau: float) -> None:
        super().__init__()
        self.network, self.tau = network, tau

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to log-probabilities [B, K]."""
        log_alpha = nn.functional.softplus(self.network(images) / self.tau)  # log(1 + exp(z / tau))
        return log_alpha.log_softmax(-1)
