"""Test-time augmentation: one member, or each of several, on views of an image; all probabilities are averaged.

Ashukha et al., 2020, arXiv 2002.06470.  The views are those of training: the mirror image, and shifts by one pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from dbn_core.errors import SpecError
from dbn_core.methods import method
from dbn_core.methods.method import Method
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from dbn_core.methods.context import PredictContext

# Pixels down and right; the diagonals come last.
_SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1))
MOST = 1 + len(_SHIFTS)  # views that exist for all data


@register("tta")
class TestTimeAugmentation(Method):
    """Test-time augmentation: one member on the image, its mirror image and shifted copies; the size counts views.

    The mirror image is the second view where the data allow it; elsewhere shifts follow at once.
    """

    same_network = "none"
    title = "TTA"
    reference = "Ashukha et al., ICLR 2020, arXiv 2002.06470"
    networks = "runs M; trains none"
    nested = True

    def check_size(self, size: int) -> None:
        """The image and eight shifts exist for all data."""
        if not 1 <= size <= MOST:
            raise SpecError(f"tta: the size counts views, 1 to {MOST}, not {size}.")

    def members(self, size: int) -> tuple[int, ...]:
        """The source alone."""
        return (0,)

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The member, run once for each view."""
        return _on_views([context.members[0]], size, context)


@register("de-tta")
class EnsembleOnViews(Method):
    """Deep ensemble whose members see several views of each image; the size counts members."""

    same_network = "none"
    title = "DE (TTA)"
    reference = "Ashukha et al., ICLR 2020, arXiv 2002.06470"
    networks = "runs M for each view; trains none"
    nested = True

    class Config(method.Config):
        """A member costs as many passes as there are views."""

        views: int = Field(2, ge=2, le=MOST, description="the image, its mirror image where the data allow it, shifts")

    def members(self, size: int) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(size))

    def terms(self, size: int) -> int:
        """One for each view of each member."""
        return size * self.config.views

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The members side by side, each run once for each view."""
        return _on_views([context.members[position] for position in range(size)], self.config.views, context)


def _on_views(networks: Iterable[nn.Module], count: int, context: PredictContext) -> nn.Module:
    from dbn_core.methods.predictors import OnViews

    mirror = [(True, 0, 0)] if context.data.flip else []
    views = [(False, 0, 0), *mirror, *((False, *shift) for shift in _SHIFTS)]
    return OnViews(networks, views[:count])
