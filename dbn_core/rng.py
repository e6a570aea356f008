"""Named randomness: seeds hashed from named axes, and the global generators seeded for one piece of work.

Every random choice has a name, and the same name gives the same choice.  ``nn.Dropout``, ``torch.randn`` without a
generator, ``np.random`` and ``random`` draw from generators that the whole process shares; :func:`seeded` makes their
draws a function of names, too.  NumPy and torch are imported on use, since planning needs only seeds.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: Any, length: int = 40) -> str:
    """Hexadecimal SHA-256 of a JSON value, cut to ``length`` characters."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def seed_for(**axes: Any) -> int:
    """A seed in [0, 2**63) from named axes, for example ``seed_for(dataset="digits", member=3, purpose="init")``.

    Names are hashed and draws are not counted, so that a new method, size or repetition changes no other choice.
    """
    return int(digest(axes, 16), 16) >> 1


def generator(**axes: Any) -> torch.Generator:
    """A CPU ``torch.Generator`` seeded by :func:`seed_for`; CPU, so that every device draws the same numbers."""
    import torch

    return torch.Generator().manual_seed(seed_for(**axes))


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
        """The present states."""
        import numpy as np

        state: Any = np.random.get_state()  # noqa: NPY002 - the global state is meant
        name, key, *rest = state
        return cls(
            {name: generator.get_state() for name, generator in _global_generators(device).items()},
            {"numpy": [name, key.tolist(), *rest], "python": random.getstate()},
        )

    def write(self, device: torch.device) -> None:
        """Set the generators to these states; a device without a stored state keeps its own."""
        import numpy as np

        for name, generator in _global_generators(device).items():
            if name in self.tensors:
                generator.set_state(self.tensors[name])
        np.random.set_state(tuple(self.others["numpy"]))  # noqa: NPY002
        version, words, gauss = self.others["python"]
        random.setstate((version, tuple(words), gauss))


@contextmanager
def seeded(device: torch.device, **axes: Any) -> Iterator[None]:
    """Seed the global generators by :func:`seed_for` of the axes, and restore their states at the end.

    Code inside draws the same numbers in any process and after any other work, and changes nothing outside.
    """
    import numpy as np

    before, seed = GlobalState.read(device), seed_for(**axes)
    try:
        for generator in _global_generators(device).values():
            generator.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        yield
    finally:
        before.write(device)


def _global_generators(device: torch.device) -> dict[str, torch.Generator]:
    """torch's global generators: that of the CPU and, where the device is CUDA, that of the device."""
    import torch

    found: dict[str, torch.Generator] = {"cpu": torch.default_generator}
    if device.type == "cuda":
        torch.cuda.init()
        index = torch.cuda.current_device() if device.index is None else device.index
        found["device"] = torch.cuda.default_generators[index]
    return found
