"""What stays in float32 where ``precision = "bf16"`` lets convolutions and matrix products run in half precision."""

from __future__ import annotations

import torch


def full_precision(x: torch.Tensor) -> torch.Tensor:
    """Half-precision numbers as float32; float32 and wider ones as they are.

    Autocast leaves this to us: on the CPU it takes softmax, logsumexp and lgamma of bf16 numbers in bf16, and stacks no
    float16 ones at all.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
