"""What a score network is, as a suite file says it.  Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dbn_core.nets.spec import NetworkOptions


class ScoreSpec(NetworkOptions):
    """Architecture of the score networks of a generative suite.

    Attributes:
        name: ``mlp`` for points, ``unet`` for images.
        width: units of a layer, or channels at full resolution (a multiple of 8).
        depth: residual blocks of the ``mlp``.
        dropout: rate inside the blocks.
        resolutions: of the ``unet``, each half as fine as the one before, with twice the channels; height and width
            are multiples of 2^(resolutions - 1).
        output_init: variance of the last layer's initial weights, relative to that of Glorot and Bengio (2010); with 0,
            all networks start as the same function.
    """

    name: Literal["mlp", "unet"] = "mlp"
    width: int = Field(96, ge=8, le=10_000)
    depth: int = Field(3, ge=1, le=100)
    dropout: float = Field(0.0, ge=0, lt=1)
    resolutions: int = Field(2, ge=2, le=8)
    output_init: float = Field(0.0, ge=0, le=100)

    @property
    def label(self) -> str:
        """Short name for tables."""
        return f"score network {self.name}, width {self.width}" + (f", depth {self.depth}" * (self.name == "mlp"))
