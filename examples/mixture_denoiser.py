"""A stand-in for a diffusion model of someone else: the exact denoiser of round normal laws around its weights.

As a program it writes two weights files, the digits 0 to 4 and 5 to 9, and other digits as a folder of images:

    python examples/mixture_denoiser.py theirs
"""

import sys
from pathlib import Path

import torch
from torch import nn


class MixtureDenoiser(nn.Module):
    """E[x_0 | x_0 + sigma * noise = x], where x_0 is one of K means with noise of its own."""

    def __init__(self, count: int = 350, shape: tuple[int, ...] = (1, 8, 8), std: float = 0.05) -> None:
        super().__init__()
        self.means, self.std = nn.Parameter(torch.zeros(count, *shape)), std

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The estimate of x_0 [B, ...] at x [B, ...] and sigma [B]."""
        flat, means, variance = x.flatten(1), self.means.flatten(1), (self.std**2 + sigma**2)[:, None]
        logits = (flat @ means.T - means.square().sum(1) / 2) / variance
        centre = logits.softmax(1) @ means
        return (centre + self.std**2 / variance * (flat - centre)).reshape(x.shape)


if __name__ == "__main__":
    from sklearn.datasets import load_digits

    from dbn_core.generative.images import write_samples

    folder, (pixels, labels) = Path(sys.argv[1]), load_digits(return_X_y=True)
    images, labels = torch.from_numpy(pixels / 16).float().reshape(-1, 1, 8, 8), torch.from_numpy(labels)
    low, high = images[labels < 5], images[labels >= 5]
    write_samples(folder / "real", torch.cat([low[800:], high[800:]]))
    for name, half in (("low", low), ("high", high)):
        torch.save({"means": 2 * half[:350] - 1}, folder / f"{name}.pt")  # in [-1, 1]
