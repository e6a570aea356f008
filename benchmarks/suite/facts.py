"""The facts about data that a plan and its keys need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DataFacts:
    """The facts about the data that planning needs."""

    fingerprint: str
    title: str
    channels: int
    image_size: tuple[int, int]
    classes: tuple[str, ...]
    counts: dict[str, int]
    unseen: str | None = None  # fingerprint of the images that no member is trained on
    splitting: str = ""  # where validation and test come from; facts that older versions stored lack it

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DataFacts:
        """Inverse of ``dataclasses.asdict`` through JSON."""
        return cls(**{**value, "image_size": tuple(value["image_size"]), "classes": tuple(value["classes"])})
