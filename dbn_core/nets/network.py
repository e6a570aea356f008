"""What every classifier of images offers, and how features are read from one.

A network maps images in [0, 1] to logits; normalisation is inside.  ``tap(at)`` reads features at a named node and the
logits in one pass, which is all that DBN and Direct need.  ``last_layer()`` separates the last linear layer from what
it reads.  ``split(at)`` cuts a network in two; only chains of blocks offer it.
"""

from __future__ import annotations

import difflib
import math
from abc import abstractmethod

import torch
from torch import nn

from dbn_core.errors import SpecError
from dbn_core.nets.spec import NetworkOptions


class Network(nn.Module):
    """Base class of classifiers: images, float [B, C, H, W] in [0, 1], to logits [B, K].

    Attributes:
        spec: what a suite file says of it.
        classes: K.
    """

    spec: NetworkOptions
    classes: int

    @abstractmethod
    def tap(self, at: str) -> Tap:
        """Features at node ``at`` and logits in one pass; raises :class:`SpecError` when there is no such node."""

    @abstractmethod
    def last_layer(self) -> tuple[nn.Module, nn.Linear]:
        """Images to what the last linear layer reads, [B, D], and that layer; both share this network's weights.

        ``linear(features(x))`` equals ``self(x)``; of a network that somebody else wrote, :func:`check_last_layer`
        finds out whether it does.

        Raises:
            SpecError: there is no such layer.
        """

    def split(self, at: str) -> tuple[nn.Module, nn.Module]:
        """Features up to and including block ``at``, and the rest as a head.

        Raises:
            SpecError: the network is no chain of blocks, or has no such block.
        """
        raise SpecError(f"{type(self).__name__} is no chain of blocks and cannot be split at '{at}': use a ResNet.")


def check_last_layer(network: Network, images: torch.Tensor) -> None:
    """Raise :class:`SpecError` unless the logits are those of the last linear layer, and nothing follows it.

    Args:
        network: in evaluation mode.
        images: [B, C, H, W].
    """
    features, linear = network.last_layer()
    with torch.no_grad():
        try:
            logits = linear(features(images))
            same = torch.allclose(logits, network(images), rtol=1e-3, atol=1e-4)
        except Exception:  # a network that reads its last layer's attributes, or something else than vectors
            same = False
    if not same:
        raise SpecError(
            "The network's logits are not the output of its last linear layer: choose another network, or remove the "
            "method."
        )


def has_batchnorm(network: nn.Module) -> bool:
    """Whether a network has BatchNorm of any kind."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


class Tap(nn.Module):
    """Images to (features [B, C, H, W], logits [B, K]) of one network, whose weights it shares."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features alone, [B, C, H, W]."""
        return self(images)[0]


class SplitTap(Tap):
    """A tap of a network that can be split: features alone cost no more than the blocks up to them."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The output of the body."""
        return self.body(images)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The head runs on the body's output."""
        h = self.body(images)
        return h, self.head(h)


class HookTap(Tap):
    """A tap of any network: a forward hook keeps what the submodule ``at`` returns.

    Args:
        network: images to logits.
        at: name of a submodule, as ``named_modules`` gives it, that runs once in a forward pass.
        within: the submodule of the network whose ``named_modules`` these are; the network itself by default.

    Raises:
        SpecError: there is no such submodule.
    """

    def __init__(self, network: nn.Module, at: str, within: str = "") -> None:
        super().__init__()
        nodes = [name for name, _ in network.get_submodule(within).named_modules() if name]
        if at not in nodes:
            top = [name for name in nodes if name.count(".") <= 1]
            near = difflib.get_close_matches(at, nodes, n=1)
            meant = f" (did you mean '{near[0]}'?)" if near else ""
            raise SpecError(f"The network has no node '{at}'{meant}. Its outer nodes: {', '.join(top[:40])}.")
        self.network, self.at, self.path = network, at, f"{within}.{at}" if within else at

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One pass; the features as a map."""
        kept: list[torch.Tensor] = []

        def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            kept.append(output)

        handle = self.network.get_submodule(self.path).register_forward_hook(keep)
        try:
            logits = self.network(images)
        finally:
            handle.remove()
        if len(kept) != 1 or not isinstance(kept[0], torch.Tensor):
            raise SpecError(
                f"The node '{self.at}' runs {len(kept)} times in a forward pass, or returns no tensor: choose another."
            )
        return as_map(kept[0]), logits


def as_map(features: torch.Tensor) -> torch.Tensor:
    """Features as a map [B, C, H, W].

    Maps stay as they are; tokens [B, N, C] lose a class token and become a square map (or one row where N is no
    square); vectors [B, C] become a map of one pixel.
    """
    if features.ndim == 4:
        return features
    if features.ndim == 2:
        return features[:, :, None, None]
    if features.ndim != 3:
        raise SpecError(f"Features of {features.ndim} dimensions cannot condition a bridge: choose another node.")
    count = features.shape[1]
    side = math.isqrt(count)
    if side * side != count and math.isqrt(count - 1) ** 2 == count - 1:
        features, side = features[:, 1:], math.isqrt(count - 1)
    height = side if side * side == features.shape[1] else 1
    return features.transpose(1, 2).unflatten(2, (height, -1))
