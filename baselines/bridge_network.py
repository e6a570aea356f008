"""Bridge Networks, type I: predict the network in the middle of a low-loss curve from the source's features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from dbn_core import method
from dbn_core.errors import SpecError
from dbn_core.method import Method, Part
from dbn_core.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.context import FitContext, PredictContext, Workspace
    from dbn_core.nets.bridge import BridgeHead
    from dbn_core.train.loop import Batch


@register("bn")
class BridgeNetwork(Method):
    """Bridge Network, type I: source plus bridges to the middles of its curves (BN)."""

    title = "BN"
    reference = "Yun et al., 2023, arXiv 2306.11304"
    nested = True

    class Config(method.Config):
        """The medium bridge of the paper; ``slim=2`` is the small one."""

        at: str = Field("block12", description="block whose output the bridge reads")
        slim: float = Field(1.0, gt=0, description="widths are divided by it: 1 medium, 2 small")
        mixup: float = Field(0.4, ge=0, description="alpha of per-example mixup while the bridge is trained")
        lr_scale: float = Field(1.0, gt=0, description="learning rate relative to the members'")
        bridge_weight_decay: float = Field(0.0, ge=0, description="L2 on the bridge")
        curve_epochs: int | None = Field(None, ge=1, description="default: the members' epochs")
        epochs: int | None = Field(None, ge=1, description="training length; default: the suite's student budget")

    def check_size(self, size: int) -> None:
        """A source and at least one bridge."""
        if size < 2:
            raise SpecError(f"bn: the size counts the source and its bridges, so it is at least 2, not {size}.")

    def parts(self, size: int) -> list[Part]:
        """For each partner of the source: a curve, then a bridge.  Curves do not depend on the bridge's options."""
        curve = self.config.model_dump(include={"curve_epochs", "lr_scale"})
        parts = []
        for partner in range(1, size):
            parts.append(Part(f"curve-{partner}", members=(0, partner), settings=curve))
            parts.append(Part(f"bridge-{partner}", members=(0, partner), needs=(f"curve-{partner}",)))
        return parts

    def members(self, size: int) -> tuple[int, ...]:
        """The source."""
        return (0,)

    def terms(self, size: int) -> int:
        """The source and its bridges."""
        return size

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Curve: cross-entropy at a random position.  Bridge: KL to the network in the middle of the curve."""
        return self._fit_curve(context) if part.name.startswith("curve") else self._fit_bridge(part, context)

    def _fit_curve(self, context: FitContext) -> nn.Module:
        import torch
        from torch.nn import functional as F

        from dbn_core.nets.bezier import BezierCurve

        start, end = context.members
        curve = BezierCurve(start, context.new_network("control"), end)
        generator = context.generator("train")

        def step(batch: Batch) -> torch.Tensor:
            position = float(torch.rand((), generator=generator))
            return F.cross_entropy(curve(batch.images, position).float(), batch.labels)

        epochs = self.config.curve_epochs or context.recipe.epochs
        recipe = context.student_recipe(epochs=epochs, lr_scale=self.config.lr_scale)
        context.train(curve, step, recipe, step_generator=generator)
        if context.spec.norm == "batchnorm":  # statistics gathered along the curve fit no single position of it
            middle = context.new_network("middle")
            middle.load_state_dict(curve.state_at(0.5))
            _recompute_batchnorm(middle, context)
            curve.control.load_state_dict(dict(middle.named_buffers()), strict=False)
        return curve.control

    def _fit_bridge(self, part: Part, context: FitContext) -> nn.Module:
        import torch
        from torch.nn import functional as F

        from dbn_core.nets.bezier import BezierCurve

        source, partner = context.members
        curve = BezierCurve(source, context.load(context.new_network("control"), part.needs[0]), partner)
        middle = context.new_network("middle").eval()
        middle.load_state_dict(curve.state_at(0.5))
        features, _ = source.split(self.config.at)
        bridge = context.initialise(self._bridge(context))

        def step(batch: Batch) -> torch.Tensor:
            with torch.no_grad():
                h = features(batch.images)
                target = middle(batch.images).log_softmax(-1)
            context.teacher_passes += 2 * len(batch)
            output = bridge(h).log_softmax(-1)
            return F.kl_div(output, target, reduction="batchmean", log_target=True)

        recipe = context.student_recipe(
            epochs=self.config.epochs,
            lr_scale=self.config.lr_scale,
            mixup=self.config.mixup,
            weight_decay=self.config.bridge_weight_decay,
        )
        context.train(bridge, step, recipe, predict=lambda current, images: current(features(images)))
        return bridge

    def _bridge(self, context: Workspace) -> BridgeHead:
        from dbn_core.nets.bridge import BridgeHead

        return BridgeHead(context.spec, context.classes, self.config.at, self.config.slim)

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """Plain average of the source's and the bridges' probabilities."""
        from dbn_core.predictors import FeatureMixture

        bridges = [context.load(self._bridge(context), f"bridge-{partner}") for partner in range(1, size)]
        return FeatureMixture(context.members[0], self.config.at, bridges)


def _recompute_batchnorm(network: nn.Module, context: FitContext) -> None:
    """Running statistics as plain averages over one pass through the training split."""
    from torch.optim.swa_utils import update_bn

    from dbn_core.data.augment import to_float

    loader = (to_float(images.to(context.device)) for images in context.data.train.images.split(256))
    update_bn(loader, network, device=context.device)
    network.eval()
