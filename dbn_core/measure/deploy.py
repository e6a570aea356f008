"""The deployable form of a predictor: the same function with constants precomputed.

BatchNorms are folded into the preceding convolutions, and the time embedding of a denoiser's score network, which runs
at T known times, becomes a constant if it does not read the logits; see :mod:`dbn_core.nets.fixed_score`.  Both are
exact up to rounding and apply to every method.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dbn_core.bridge.denoiser import Denoiser
from dbn_core.nets.fixed_score import at_time, reads_logits
from dbn_core.nets.resnet import BatchNormReLU, ResidualReLU
from dbn_core.nets.score import ScoreNetwork

# Largest differences of log-probabilities between both forms; rounding is one or two orders of magnitude smaller.
_ABSOLUTE, _RELATIVE = 1e-4, 1e-5


class FixedSteps(Denoiser):
    """A denoiser with one network per step n, in which the time n / T is a constant."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__(nn.Identity(), denoiser.variances)
        self.scales = denoiser.scales
        self.networks = nn.ModuleList(
            at_time(denoiser.network, n / denoiser.steps) for n in range(1, denoiser.steps + 1)
        )

    def forward(self, features: Any, z: torch.Tensor, n: int) -> torch.Tensor:
        """Estimate of Z_0 [B, K] from Z_n, as :meth:`Denoiser.forward`."""
        return z - self.scales.tolist()[n] * self.networks[n - 1](features, z)


@torch.no_grad()
def deployable(predictor: nn.Module, example: torch.Tensor) -> nn.Module:
    """A copy of ``predictor`` with constants folded; the same log-probabilities within 1e-4.

    A predictor that cannot be copied, or whose folded copy disagrees on ``example``, is returned unchanged.  Predictors
    that draw random numbers are not compared.

    Args:
        predictor: in evaluation mode; it is not changed.
        example: images [B, C, H, W] in [0, 1] on its device.
    """
    try:
        folded = _fold_norms(copy.deepcopy(predictor), example)
    except (TypeError, RuntimeError):  # third-party modules may not support deepcopy
        return predictor
    _fix_times(folded)
    if draws_numbers(predictor, example):
        return folded
    same = torch.allclose(folded(example), predictor(example), atol=_ABSOLUTE, rtol=_RELATIVE)
    return folded if same else predictor


class _Draws(TorchDispatchMode):
    """Records whether an operator draws random numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found |= torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def draws_numbers(predictor: nn.Module, example: torch.Tensor) -> bool:
    """Whether a forward pass on ``example`` [B, C, H, W] draws random numbers with torch: noise, dropout."""
    with _Draws() as draws:
        predictor(example)
    return draws.found


class _Reads(TorchDispatchMode):
    """Counts how often operators read each of some tensors, by identity."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in (*args, *(kwargs or {}).values()):
            for tensor in value if isinstance(value, list | tuple) else (value,):
                if id(tensor) in self.counts:
                    self.counts[id(tensor)] += 1
        return func(*args, **(kwargs or {}))


def _fold_norms(module: nn.Module, example: torch.Tensor) -> nn.Module:
    """Fold each BatchNorm into the convolution whose output it, and nothing else, reads in a forward pass."""
    outputs: list[tuple[torch.Tensor, nn.Conv2d]] = []  # kept alive, so that identities stay unique
    read: dict[nn.Module, list[nn.Conv2d | None]] = {}
    reads = _Reads()

    def after_convolution(conv: nn.Module, _: Any, output: torch.Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        outputs.append((output, conv))
        reads.counts[id(output)] = 0

    def before_norm(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        read.setdefault(norm, []).append(next((conv for tensor, conv in outputs if tensor is inputs[0]), None))

    hooks = [m.register_forward_hook(after_convolution) for m in module.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(before_norm) for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    with reads:
        module(example)
    for hook in hooks:
        hook.remove()
    calls = [conv for _, conv in outputs]
    shared = {conv for tensor, conv in outputs if reads.counts[id(tensor)] > 1}  # with a residual, for example
    sources = {norm: convs[0] for norm, convs in read.items() if len(set(convs)) == 1}
    for parent in list(module.modules()):
        for name, norm in list(parent.named_children()):
            conv = sources.get(norm)
            if (
                isinstance(norm, nn.BatchNorm2d)
                and type(norm) in (nn.BatchNorm2d, BatchNormReLU)  # a third-party subclass may do more
                and conv is not None
                and conv not in shared
                and calls.count(conv) == len(read[norm])
                and list(sources.values()).count(conv) == 1
            ):
                fused = torch.nn.utils.fuse_conv_bn_eval(conv, norm)
                conv.weight, conv.bias = fused.weight, fused.bias
                setattr(parent, name, ResidualReLU() if type(norm) is BatchNormReLU else nn.Identity())
    return module


def _fix_times(module: nn.Module) -> None:
    """Replace denoisers with a :class:`ScoreNetwork` that does not read the logits by :class:`FixedSteps`."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is Denoiser and isinstance(child.network, ScoreNetwork) and not reads_logits(child.network):
                setattr(parent, name, FixedSteps(child))
