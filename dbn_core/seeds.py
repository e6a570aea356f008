"""Seeds from named axes: every random choice has a name, and the same name gives the same choice."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, whatever their order."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: Any, length: int = 40) -> str:
    """Hexadecimal SHA-256 of a JSON value, cut to ``length`` characters."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def seed_for(**axes: Any) -> int:
    """A seed in [0, 2**63) from named axes, for example ``seed_for(dataset="digits", member=3, purpose="init")``.

    Hashing names instead of counting draws keeps a choice unchanged when another method, size or repetition is added.
    """
    return int(digest(axes, 16), 16) >> 1


def generator(**axes: Any) -> torch.Generator:
    """A CPU ``torch.Generator`` seeded by :func:`seed_for`; CPU, so that every device draws the same numbers."""
    import torch

    return torch.Generator().manual_seed(seed_for(**axes))
