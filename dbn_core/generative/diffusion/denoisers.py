"""Diffusion models of other programs, as ``(x, sigma) -> denoised``, in the samplers and under the rules of this one.

That is the convention of EDM (Karras et al., 2022, arXiv 2206.00364) and k-diffusion: the variance explodes,
``x = x_0 + sigma * noise``, and the module estimates E[x_0 | x].  Our process preserves the variance,
``x_t = alpha_t x_0 + sigma_t noise``.  They are one process in two units: ``x_t / alpha_t`` has the noise
``sigma_t / alpha_t``, and the estimate of x_0 is the same in both, so

    denoised(x_t, t) = D(x_t / alpha_t, sigma_t / alpha_t).

>>> import torch
>>> theirs = lambda x, sigma: x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)  # exact for data that are standard normal
>>> schedule = schedule_between(0.002, 80.0)
>>> members = [score_of(theirs, schedule), score_of(theirs, schedule)]
>>> start = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
>>> from dbn_core.generative.diffusion.samplers import sample_diffusion
>>> x_0 = sample_diffusion(members, start, schedule, steps=18, sampler="heun", rule="median")
>>> members[0].decode(x_0).shape  # images in [0, 1]
torch.Size([5, 3, 8, 8])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from dbn_core.errors import PluginError, SpecError
from dbn_core.generative.diffusion.members import Member
from dbn_core.generative.diffusion.process import append_dims
from dbn_core.generative.diffusion.schedules import VP


class DenoiserNetwork(nn.Module):
    """A denoiser ``(x [B, ...], sigma [B]) -> denoised [B, ...]`` as a network of x_t and log(sigma_t / alpha_t).

    Raises:
        PluginError: the denoiser returned another shape than x, no tensor, or NaN or infinite values.
    """

    def __init__(self, denoiser: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """The estimate of x_0 [B, ...] at x_t [B, ...] and level [B]."""
        sigma = level.exp()
        denoised = self.denoiser(x * append_dims((1 + sigma.square()).sqrt(), x), sigma)  # 1 / alpha_t
        if not isinstance(denoised, torch.Tensor) or denoised.shape != x.shape:
            tensor = isinstance(denoised, torch.Tensor)
            what = f"shape {list(denoised.shape)}" if tensor else f"a {type(denoised).__name__}"
            raise PluginError(f"The denoiser returned {what} for x of shape {list(x.shape)}: return x_0 of that shape.")
        if not torch.jit.is_tracing() and not denoised.isfinite().all():
            raise PluginError(
                f"The denoiser returned NaN or infinite values at sigma = {sigma.max():.4g}: check its weights, and "
                "sample between the smallest and largest sigma of its training."
            )
        return denoised


def score_of(
    denoiser: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    schedule: VP | None = None,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.5,),
) -> Member:
    """The score of a denoiser, for :func:`~dbn_core.generative.diffusion.samplers.sample_diffusion` and others.

    Args:
        denoiser: see :class:`DenoiserNetwork`; a module is put into evaluation mode.
        schedule: of the sampler; :class:`VP` by default, whose sigma / alpha runs from 152 to 0.0105.
        mean, std: the denoiser's x is (data - mean) / std; a number for each channel, or one for all.  The defaults are
            those of images in [0, 1] that it takes in [-1, 1].
    """
    return Member(DenoiserNetwork(denoiser), schedule or VP(), "x", mean, std).eval()


def schedule_between(sigma_min: float, sigma_max: float) -> VP:
    """The schedule whose sigma / alpha runs from ``sigma_max`` (noise) to ``sigma_min`` (data), for samplers.

    EDM's are 0.002 and 80.  Trajectories start at standard normal noise, which is the law of x_t only where sigma_max
    is far above the standard deviation of the data.

    Raises:
        SpecError: not 0 < sigma_min < sigma_max < infinity.
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise SpecError(f"The range of sigma is {sigma_min:g} to {sigma_max:g}: give 0 < smallest < largest.")
    base = VP()
    slope = base.beta_max - base.beta_min

    def time(sigma: float) -> float:
        # log(1 + sigma^2) = -2 log alpha_t = t beta_min + t^2 slope / 2, without cancellation near t = 0
        wanted = 2 * math.log(sigma) if sigma > 1e8 else math.log1p(sigma**2)
        return 2 * wanted / (base.beta_min + math.sqrt(base.beta_min**2 + 2 * slope * wanted))

    return VP(t_max=time(sigma_max), t_min=time(sigma_min))
