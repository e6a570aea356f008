"""Test-time augmentation: one member on several views of each image, whose probabilities are averaged.

Ashukha et al., 2020, arXiv 2002.06470.  The views are those of training: the mirror image, and shifts by one pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbn_core.errors import SpecError
from dbn_core.methods.method import Method
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    from torch import nn

    from dbn_core.methods.context import PredictContext

# Pixels down and right; the diagonals come last.
_SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1))


@register("tta")
class TestTimeAugmentation(Method):
    """Test-time augmentation: one member on the image, its mirror image and shifted copies; the size counts views.

    The mirror image is the second view where the data allow it; elsewhere shifts follow at once.
    """

    title = "TTA"
    reference = "Ashukha et al., ICLR 2020, arXiv 2002.06470"
    nested = True

    def check_size(self, size: int) -> None:
        """The image and eight shifts exist for all data."""
        if not 1 <= size <= 1 + len(_SHIFTS):
            raise SpecError(f"tta: the size counts views, 1 to {1 + len(_SHIFTS)}, not {size}.")

    def members(self, size: int) -> tuple[int, ...]:
        """The source alone."""
        return (0,)

    def terms(self, size: int) -> int:
        """One for each view."""
        return size

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The member, run once for each view."""
        from dbn_core.methods.predictors import Views

        mirror = [(True, 0, 0)] if context.data.flip else []
        views = [(False, 0, 0), *mirror, *((False, *shift) for shift in _SHIFTS)]
        return Views(context.members[0], views[:size])
