"""Global random generators, lent to one piece of work: seeded when it begins, as they were before when it ends.

``nn.Dropout``, ``torch.randn`` without a generator, ``np.random`` and ``random`` draw from generators that a whole
process shares.  Whatever runs inside :func:`seeded` draws the same numbers in any process, after any other work, and
leaves no trace outside.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dbn_core.seeds import seed_for


@dataclass(frozen=True)
class GlobalState:
    """States of the global generators.

    Attributes:
        tensors: of torch, for the CPU and for the device where that has a generator of its own; uint8.
        others: of NumPy's legacy functions and of Python's ``random``; JSON.
    """

    tensors: dict[str, torch.Tensor]
    others: dict[str, Any]

    @classmethod
    def read(cls, device: torch.device) -> GlobalState:
        """As they are now."""
        state: Any = np.random.get_state()  # noqa: NPY002 - it is the global state that is meant
        name, key, *rest = state
        return cls(
            {name: generator.get_state() for name, generator in _generators(device).items()},
            {"numpy": [name, key.tolist(), *rest], "python": random.getstate()},
        )

    def write(self, device: torch.device) -> None:
        """Set them; a device that the state does not know keeps its own."""
        for name, generator in _generators(device).items():
            if name in self.tensors:
                generator.set_state(self.tensors[name])
        if self.others:
            np.random.set_state(tuple(self.others["numpy"]))  # noqa: NPY002
            version, words, gauss = self.others["python"]
            random.setstate((version, tuple(words), gauss))


@contextmanager
def seeded(device: torch.device, **axes: Any) -> Iterator[None]:
    """Seed the global generators by :func:`dbn_core.seeds.seed_for` of the axes, and restore them at the end."""
    before, seed = GlobalState.read(device), seed_for(**axes)
    try:
        for generator in _generators(device).values():
            generator.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        yield
    finally:
        before.write(device)


def _generators(device: torch.device) -> dict[str, torch.Generator]:
    """torch's global generators, that of the CPU and that of a CUDA device."""
    found = {"cpu": torch.default_generator}
    if device.type == "cuda":
        torch.cuda.init()
        index = torch.cuda.current_device() if device.index is None else device.index
        found["device"] = torch.cuda.default_generators[index]
    return found
