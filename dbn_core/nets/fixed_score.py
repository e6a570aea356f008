"""A score network with a dead logit branch at one known time, with all that does not depend on the image precomputed.

The time embedding is a constant, hence also what each stage adds to its input, and so is the logit branch; both join
the bias of the 1x1 convolution that reads them.  Two 1x1 convolutions in a row become one where that is cheaper.
Channels are filled up with zeros to whole vectors, without which depthwise convolutions run several times slower.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn import functional as F

from dbn_core.nets.precision import full_precision

# Channels of one vector: inference engines lay feature maps out in blocks of 8 (AVX2) or 16 (AVX-512).
_BLOCK = 16


class FixedScore(nn.Module):
    """A score network at one time: epsilon(h) alone.

    Args:
        layers: stem, stages and head in order, [B, C, H, W] to [B, C', H', W'].
        out: the last linear layer.
    """

    def __init__(self, layers: Iterable[nn.Module], out: nn.Linear) -> None:
        super().__init__()
        self.layers, self.out = nn.Sequential(*layers), out

    def forward(self, features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Features [B, C, H, W] to epsilon [B, K]; the logits are not read."""
        return full_precision(self.out(self.layers(features).mean((2, 3))))


class Shifted(nn.Module):
    """``shift`` [C] is added to feature maps that bring ``given`` channels, after zeros for the others."""

    shift: torch.Tensor

    def __init__(self, shift: torch.Tensor, given: int) -> None:
        super().__init__()
        self.given = given
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, given, H, W] to [B, C, H, W]."""
        missing = len(self.shift) - self.given
        return (F.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x) + self.shift


def reads_logits(network: Any) -> bool:
    """Whether the output depends on the logits: not through the released encoder, unless it was trained otherwise."""
    return network.sees_state or bool(network.logits.layers[-1].weight.any())


@torch.no_grad()
def at_time(network: Any, tau: float) -> FixedScore:
    """A score network at the time ``tau`` in [0, 1], sharing its weights where they stay as they are.

    Args:
        network: a :class:`~dbn_core.nets.score.ScoreNetwork` that does not read the logits, and whose BatchNorms have
            been folded into the convolutions: identities stand in their places.
        tau: the time.
    """
    last, stem = network.logits.layers[-1], network.stem[0]
    condition = network.time(torch.tensor([tau], device=stem.weight.device))
    layers: list[nn.Module] = [*network.stem]
    for index, (stage, project) in enumerate(zip(network.stages, network.stage_conditions, strict=True)):
        shift = project(condition)[0]
        given = len(shift) if index else stem.out_channels
        if not index:  # the last channel is the constant that the logit branch gives
            shift[-1] += last.bias[0]
        layers.append(Shifted(shift, given))
        for block in stage:
            layers += [block] if block.skip else [*block.layers]
    layers = [layer for layer in (*layers, *network.head) if not isinstance(layer, nn.Identity)]
    filled = [_filled(layer, stem) for layer in _joined(layers, _absorbed)]
    return FixedScore(_joined(filled, _merged), _filled(network.out, stem))


def _joined(layers: list[nn.Module], join: Callable[[nn.Module, nn.Module], nn.Module | None]) -> list[nn.Module]:
    """The chain with each pair that ``join`` makes one layer of in its place."""
    result = layers[:1]
    for layer in layers[1:]:
        one = join(result[-1], layer)
        result[-1 if one else len(result) :] = [one or layer]
    return result


def _absorbed(shifted: nn.Module, conv: nn.Module) -> nn.Conv2d | None:
    """A 1x1 convolution of what is shifted; one of 3x3 would see no shift beyond the edge."""
    if not (isinstance(shifted, Shifted) and _pointwise(conv)):
        return None
    bias = conv.weight[:, :, 0, 0] @ shifted.shift[:, 0, 0] + (0 if conv.bias is None else conv.bias)
    return _convolution(conv, conv.weight[:, : shifted.given], bias)


def _merged(first: nn.Module, second: nn.Module) -> nn.Conv2d | None:
    """Two 1x1 convolutions as one, if that multiplies no more than both."""
    if not (_pointwise(first) and _pointwise(second)):
        return None
    apart = first.out_channels * (first.in_channels + second.out_channels)
    if first.in_channels * second.out_channels > apart:
        return None
    matrix = second.weight[:, :, 0, 0]
    bias = (0 if first.bias is None else matrix @ first.bias) + (0 if second.bias is None else second.bias)
    weight = (matrix.double() @ first.weight[:, :, 0, 0].double()).to(matrix)
    return _convolution(second, weight[:, :, None, None], bias if isinstance(bias, torch.Tensor) else None)


def _pointwise(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride == (1, 1)


def _filled(module: Any, stem: nn.Conv2d) -> Any:
    """``module`` with its channels filled up to whole blocks by weights of zero, but not those that the stem reads."""
    if isinstance(module, nn.Conv2d):
        into = 0 if module is stem or module.groups > 1 else -module.in_channels % _BLOCK
        out = -module.out_channels % _BLOCK
        bias = None if module.bias is None else F.pad(module.bias, (0, out))
        return _convolution(module, F.pad(module.weight, (0, 0, 0, 0, 0, into, 0, out)), bias)
    if isinstance(module, nn.Linear):
        weight = F.pad(module.weight, (0, -module.in_features % _BLOCK))
        wider = nn.Linear(weight.shape[1], len(weight), device=weight.device)
        wider.weight, wider.bias = nn.Parameter(weight, False), module.bias
        return wider
    if isinstance(module, Shifted):
        given, shift = module.given, module.shift[:, 0, 0]
        return Shifted(F.pad(shift, (0, -len(shift) % _BLOCK)), given + -given % _BLOCK)
    changed = copy.copy(module)
    changed._modules = {name: _filled(child, stem) for name, child in module.named_children()}
    return changed


def _convolution(like: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Conv2d:
    """A convolution with stride and padding of ``like``; depthwise where that is."""
    made = copy.copy(like)
    made.groups = len(weight) if like.groups > 1 else 1
    made.in_channels, made.out_channels = weight.shape[1] * made.groups, len(weight)
    made._parameters = {
        "weight": nn.Parameter(weight.contiguous(memory_format=torch.channels_last), False),
        "bias": None if bias is None else nn.Parameter(bias, False),
    }
    return made
