"""What a network is, as a suite file says it.  Imports no torch."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_CIFAR = re.compile(r"resnet([0-9]{1,4})")


class NetworkOptions(BaseModel):
    """What every kind of ``[network]`` has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def label(self) -> str:
        """Short name for tables."""
        return type(self).__name__

    def key(self) -> dict[str, Any]:
        """JSON value that identifies the architecture."""
        return self.model_dump()


class NetworkSpec(NetworkOptions):
    """Family, width and normalisation of a classifier.

    Stage s has ``channels * width * 2**s`` channels; the stem keeps ``channels``.

    Attributes:
        name: ``resnet8``, ``resnet14``, ``resnet20``, ``resnet32`` ... (6n+2, three stages) or ``resnet34`` (four
            stages).
        width: factor of the channels of all stages, not of the stem.
        channels: of the stem.
        norm: ``frn`` is filter response normalisation with swish, ``batchnorm`` BatchNorm with ReLU.
        bias: whether convolutions have one.
        stem: ``3x3/2`` halves the image at once, for a network of four times the channels at the same cost; ``7x7``
            halves it and pools to a quarter.
    """

    name: str = "resnet32"
    width: float = Field(2.0, gt=0, le=1000)
    channels: int = Field(16, ge=1, le=100_000)
    norm: Literal["frn", "batchnorm"] = "frn"
    bias: bool = True
    stem: Literal["3x3", "3x3/2", "7x7"] = "3x3"

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        match = _CIFAR.fullmatch(name)
        if name != "resnet34" and not (match and int(match[1]) >= 8 and (int(match[1]) - 2) % 6 == 0):
            raise ValueError(f"unknown network '{name}': write resnet34, or resnet8, resnet14, resnet20 ... (6n+2)")
        return name

    @property
    def stages(self) -> tuple[int, ...]:
        """Number of residual blocks in each stage."""
        if self.name == "resnet34":
            return (3, 4, 6, 3)
        return (((int(self.name.removeprefix("resnet")) - 2) // 6),) * 3

    def slimmed(self, factor: float) -> NetworkSpec:
        """The same network with every width divided by ``factor``."""
        return self.model_copy(update={"channels": max(1, round(self.channels / factor))})

    @property
    def label(self) -> str:
        """Short name for tables, for example ``ResNet-32 x2 (FRN)``."""
        depth, norm = self.name.removeprefix("resnet"), {"frn": "FRN-Swish", "batchnorm": "BN-ReLU"}[self.norm]
        return f"ResNet-{depth} ({norm}, stem {self.channels}, width x{self.width:g})"
