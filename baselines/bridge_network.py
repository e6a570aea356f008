"""Bridge Networks: predict a network on the low-loss curve between two members from the features of its ends."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dbn_core.errors import SpecError
from dbn_core.methods import method
from dbn_core.methods.method import Method, Part, TrainingCost
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext, Workspace
    from dbn_core.nets.bezier import BezierCurve
    from dbn_core.nets.heads import BridgeHead
    from dbn_core.nets.resnet import Classifier
    from dbn_core.nets.spec import NetworkOptions
    from dbn_core.train.recipe import Recipe

_MIDDLE = 0.5  # r, the place on a curve that bridges predict, and at which the curve's checkpoints are compared
_ALIGNMENT_IMAGES = 10_000
# What each kind of part depends on, next to the members and parts that it reads.
_SOLVER = {"lr_scale", "warmup_epochs", "nesterov", "keep"}
_SETTINGS = {
    "aligned": set[str](),
    "curve": _SOLVER | {"curve_epochs", "curve_weight_decay"},
    "bridge": _SOLVER | {"type", "split_at", "width", "mixup", "bridge_weight_decay", "batch_size", "epochs"},
}


class BridgeNetworkConfig(method.Config):
    """The medium bridge of the paper; ``width=0.5`` is the small one."""

    type: int = Field(1, ge=1, le=2, description="1: a bridge reads the source; 2: both ends of its curve")
    split_at: str = Field("block12", description="block whose output the bridge reads")
    width: float = Field(1.0, gt=0, description="multiplier of the bridge's channels: 1 medium, 0.5 small")
    align: bool = Field(False, description="permute the far end of each curve to match the near one first")
    mixup: float = Field(
        0.4, ge=0, allow_inf_nan=False, description="alpha of per-example mixup while the bridge is trained"
    )
    lr_scale: float = Field(1.0, gt=0, description="learning rate relative to the members'")
    bridge_weight_decay: float = Field(0.0, ge=0, description="L2 on the bridge")
    curve_weight_decay: float | None = Field(None, ge=0, description="L2 on the curve; default: the members'")
    warmup_epochs: float | None = Field(None, ge=0, description="of curves and bridges; default: the members'")
    nesterov: bool | None = Field(None, description="in curves and bridges; default: as the members")
    batch_size: int | None = Field(None, ge=2, description="of the bridges; default: the members'")
    curve_epochs: int | None = Field(None, ge=1, description="default: the members' epochs")
    epochs: int | None = Field(None, ge=1, description="training length; default: the suite's student budget")
    keep: Literal["last", "best"] | None = Field(
        None, description="best: curves by validation accuracy at r = 0.5, bridges by NLL; default: as the members"
    )


@register("bn")
class BridgeNetwork(Method):
    """Bridge Network: base models plus bridges to networks on the curves between them (BN).

    Type 1 at size m predicts with one base model, the source, and its bridges towards m - 1 partners: m terms.
    Type 2 at size n predicts with n base models and the bridges of all their pairs: n (n + 1) / 2 terms.  All terms
    weigh the same.
    """

    same_network = "all"
    needs_split = True
    title = "BN"
    reference = "Yun et al., 2023, arXiv 2306.11304"
    networks = "runs 1 and a small network a bridge; trains these and the curves"
    nested = True
    version = 2  # BatchNorm statistics are refreshed on augmented images, and curves see no cutmix

    class Config(BridgeNetworkConfig):
        """See :class:`BridgeNetworkConfig`."""

    def check_size(self, size: int) -> None:
        """At least one pair of base models."""
        if size < 2:
            counts = "the source and its bridges" if self.config.type == 1 else "the base models"
            raise SpecError(f"bn: the size counts {counts}, so it is at least 2, not {size}.")

    def check_network(self, network: NetworkOptions) -> None:
        """Channels can be permuted where norms follow convolutions."""
        super().check_network(network)
        if self.config.align and getattr(network, "preactivation", False):
            raise SpecError(
                f"bn: align=true permutes channels of networks without pre-activation, and "
                f"'{network.label}' has it: remove align."
            )

    def feature_nodes(self, network: NetworkOptions) -> tuple[str, ...]:
        """The block that bridges read."""
        return (self.config.split_at,)

    def pairs(self, size: int) -> list[tuple[int, int]]:
        """Ends of the curves.  Those of a smaller size come first: 01, 02, 03 (type 1); 01, 02, 12 (type 2)."""
        return [(near, far) for far in range(1, size) for near in range(far if self.config.type == 2 else 1)]

    def parts(self, size: int) -> list[Part]:
        """For each pair a curve, then its bridge.  Curves are the same for both types and all bridges."""
        parts = []
        for pair in self.pairs(size):
            curve: tuple[str, ...] = ()
            if self.config.align:
                curve = (_name("aligned", pair),)
                parts.append(self._part("aligned", pair))
            parts.append(self._part("curve", pair, curve))
            parts.append(self._part("bridge", pair, (_name("curve", pair), *curve)))
        return parts

    def _part(self, kind: str, pair: tuple[int, int], needs: tuple[str, ...] = ()) -> Part:
        return Part(_name(kind, pair), pair, needs, settings=self.config.key(include=_SETTINGS[kind]))

    def members(self, size: int) -> tuple[int, ...]:
        """The source (type 1), or all base models (type 2)."""
        return (0,) if self.config.type == 1 else tuple(range(size))

    def terms(self, size: int) -> int:
        """Base models and pairs; those of a smaller size come first."""
        return len(self.members(size)) + len(self.pairs(size))

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """A curve takes the members' epochs; a step on a bridge, 0.3 of one on a network (measured: 0.17 to 0.26)."""
        kind, _, _ = part.name.partition("-")
        if kind == "aligned":  # made from weights
            return TrainingCost(0, recipe.batch_size)
        if kind == "curve":
            return TrainingCost(self.config.curve_epochs or recipe.epochs, recipe.batch_size)
        cost = super().training_cost(part, recipe, student_epochs)
        return dataclasses.replace(cost, share=0.3, teachers=self.config.type + 1)

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Curve: cross-entropy at a random position.  Bridge: matched to the network in the middle of the curve.

        ``aligned`` is the far end with its channels permuted.
        """
        kind, _, _ = part.name.partition("-")
        if kind == "aligned":
            return self._align(context)
        if kind == "curve":
            return self._fit_curve(part, context)
        control = context.load(context.new_network("control"), part.needs[0])
        return self._fit_bridge(_middle(_curve(part, context, control), context), context)

    def _align(self, context: FitContext) -> nn.Module:
        import torch

        from dbn_core.nets.align import align

        near, far = context.members
        images = context.data.train.images
        chosen = torch.randperm(len(images), generator=context.generator("images"))[:_ALIGNMENT_IMAGES]
        return align(far, near, images[chosen])

    def _fit_curve(self, part: Part, context: FitContext) -> nn.Module:
        import torch
        from torch.nn import functional as F

        curve = _curve(part, context, context.new_network("control"))
        generator = context.generator("train")
        validated: list[nn.Module] = []  # the network that validation looks at, until the next step of training

        def step(batch: Batch) -> torch.Tensor:
            validated.clear()
            position = float(torch.rand((), generator=generator))
            return F.cross_entropy(curve(batch.images, position), batch.labels)

        def predict(current: Any, images: torch.Tensor) -> torch.Tensor:
            if not validated:
                validated.append(_middle(current, context))
            return validated[0](images)

        recipe = context.student_recipe(
            **self._solver("best_accuracy"),
            epochs=self.config.curve_epochs or context.recipe.epochs,
            mixup=0.0,
            cutmix=0.0,  # the labels are those of whole images
            weight_decay=self.config.curve_weight_decay,
        )
        context.train(curve, step, recipe, predict=predict, step_generator=generator)
        return curve.control

    def _fit_bridge(self, network: nn.Module, context: FitContext) -> nn.Module:
        """Minimise KL(p_network || p_bridge), batch mean."""
        import torch

        from dbn_core.bridge.denoiser import kl_to

        config = self.config
        ends = [end.split(config.split_at)[0] for end in context.members[: config.type]]
        bridge = context.initialise(self._bridge(context))

        def step(batch: Batch) -> torch.Tensor:
            with torch.no_grad():
                maps = [features(batch.images) for features in ends]
                target = network(batch.images)
            context.teacher_passes += (len(ends) + 1) * len(batch)
            return kl_to(bridge(torch.cat(maps, 1)), target)

        def predict(current: Any, images: torch.Tensor) -> torch.Tensor:
            return current(torch.cat([features(images) for features in ends], 1))

        recipe = context.student_recipe(
            **self._solver("best_nll"),
            epochs=config.epochs,
            batch_size=config.batch_size,
            mixup=config.mixup,
            weight_decay=config.bridge_weight_decay,
        )
        context.train(bridge, step, recipe, predict=predict)
        return bridge

    def _solver(self, best: str) -> dict[str, Any]:
        """Common recipe of curves and bridges; ``best`` is the score that chooses the checkpoint."""
        config = self.config
        return {
            "lr_scale": config.lr_scale,
            "warmup_epochs": config.warmup_epochs,
            "nesterov": config.nesterov,
            "keep": best if config.keep == "best" else config.keep,
        }

    def _bridge(self, context: Workspace) -> BridgeHead:
        from dbn_core.nets.heads import BridgeHead

        return BridgeHead(
            context.spec, context.classes, self.config.split_at, self.config.width, sources=self.config.type
        )

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """Plain average of the base models' and the bridges' probabilities."""
        from dbn_core.methods.predictors import FeatureMixture, PairMixture

        base, at = [context.members[position] for position in self.members(size)], self.config.split_at
        bridges = [context.load(self._bridge(context), _name("bridge", pair)) for pair in self.pairs(size)]
        return FeatureMixture(base[0], at, bridges) if self.config.type == 1 else PairMixture(base, at, bridges)


def _name(kind: str, pair: tuple[int, int]) -> str:
    """``curve-2`` between the source and member 2, ``curve-1-2`` between members 1 and 2."""
    near, far = pair
    return f"{kind}-{near}-{far}" if near else f"{kind}-{far}"


def _curve(part: Part, context: FitContext, control: Classifier) -> BezierCurve:
    """The curve between the part's members, or to the far one as aligned where the part needs that."""
    from dbn_core.nets.bezier import BezierCurve

    near, far = context.members
    for name in part.needs:
        if name.startswith("aligned"):
            far = context.load(context.new_network("aligned"), name)
    return BezierCurve(near, control, far)


def _middle(curve: BezierCurve, context: FitContext) -> nn.Module:
    """The frozen network in the middle, with BatchNorm statistics of its own: those of the curve fit no position."""
    from dbn_core.methods.context import freeze
    from dbn_core.train.statistics import refresh_statistics

    network = context.new_network("middle")
    network.load_state_dict(curve.state_at(_MIDDLE))
    data, draws = context.data, context.generator("statistics")
    refresh_statistics(network, data.train, context.recipe, data.flip, draws, context.device)
    return freeze(network)
