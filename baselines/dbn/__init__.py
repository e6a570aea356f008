"""Diffusion Bridge Networks: carry one member's logits to the ensemble's along a bridge, then distil it to one step.

Kim, Yoon and Lee, 2024, arXiv 2404.15814.  For an image x, the source f_1, its features h(x), further members f_i and a
random temperature t; S = sigma_T^2, and the numbers are those that the functions of ``dbn_core.bridge`` refer to:

    (1)  Z_0 = log mean_i softmax(f_i(x)), centred                      what the ensemble says
    (2)  Z_1 = f_1(x) / t,  t in [2, 2.4]                               what the source says, softened
    (3)  Z_n ~ N((1 - sigma_n^2 / S) Z_0 + (sigma_n^2 / S) Z_1,  sigma_n^2 (S - sigma_n^2) / S)
    (4)  loss = || eps(h(x), Z_n, n / T) - (Z_n - Z_0) / sigma_n ||^2    training
    (5)  Z_{n-1} = a_n (Z_n - sigma_n eps) + (1 - a_n) Z_n               sampling, n = T ... 1
    (6)  loss = alpha || eps - (Z_1 - Z_C) / sigma ||^2 + (1 - alpha) || eps - (Z_1 - Z_0) / sigma ||^2

where Z_C is the T-step sample: (6) distils T steps to one.  A prediction is one pass of the source and, for each of L
bridges, one of its small network eps; their probabilities are averaged.

Beyond the paper, ``distill=branches`` also teaches the student its teacher's intermediate states (``branches``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.dbn.extensions import DBNConfig
from baselines.dbn.options import PRESETS, RECORDED
from dbn_core.errors import SpecError
from dbn_core.methods.method import Method, Part, TrainingCost
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.bridge.denoiser import Denoiser
    from dbn_core.methods.context import FitContext, PredictContext, Workspace
    from dbn_core.nets.spec import NetworkOptions
    from dbn_core.train.recipe import Recipe

DISTILLED_PART: dict[bool | str, str] = {True: "onestep", "branches": "branches"}

__all__ = ["PRESETS", "DBNConfig", "DiffusionBridgeNetwork"]


@register("dbn")
class DiffusionBridgeNetwork(Method):
    """Diffusion Bridge Network: L one-step bridges with one source cover 2L + 1 members (DBN)."""

    same_network = "source"
    title = "DBN"
    reference = "Kim, Yoon and Lee, 2024, arXiv 2404.15814"
    networks = "runs 1 and a small network a bridge; trains these"
    records = RECORDED

    class Config(DBNConfig):
        """See :class:`DBNConfig`."""

    def bridges(self, size: int) -> int:
        """L, the number of bridges that cover ``size`` members."""
        return (size - 1) // (self.config.members_per_bridge - 1)

    def check_size(self, size: int) -> None:
        """A source and whole groups of further members."""
        further = self.config.members_per_bridge - 1
        if size < self.config.members_per_bridge or (size - 1) % further:
            raise SpecError(
                f"dbn: with members_per_bridge={self.config.members_per_bridge} the size is 1 + a multiple of "
                f"{further}, not {size}: set members_per_bridge={size} for one bridge of {size} members."
            )

    def feature_nodes(self, network: NetworkOptions) -> tuple[str, ...]:
        """The node whose features condition the score networks."""
        return (self.config.split_at,)

    def members(self, size: int) -> tuple[int, ...]:
        """The source."""
        return (0,)

    def parts(self, size: int) -> list[Part]:
        """For each bridge a multi-step network, then its one-step student."""
        config, count, further = self.config, self.bridges(size), self.config.members_per_bridge - 1
        # The weight of the source in a target depends on how many targets it is in.
        suffix = f"of{count}" if config.source_weight == "once" and count > 1 else ""
        trained = config.key(exclude={"preset", "distill"})
        multi = {k: v for k, v in trained.items() if not k.startswith(("distill", "branch"))}
        if config.distill:  # part of the budget is kept for the student
            multi["distill_share"] = config.distill_share
        # Two images teach a perturbed input, so that its teachers run online.
        mixup = None if config.perturb_input else config.mixup
        parts = []
        for bridge in range(1, count + 1):
            members = (0, *range((bridge - 1) * further + 1, bridge * further + 1))
            end = f"{bridge}{suffix}"
            parts.append(Part(f"bridge-{end}", members, settings=multi, teacher_mixup=mixup))
            if config.distill:
                name, needs = f"{DISTILLED_PART[config.distill]}-{end}", (f"bridge-{end}",)
                parts.append(Part(name, members, needs, trained, teacher_mixup=mixup))
        return parts

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """Bridge and distillation share the epochs; a step costs 0.3 of one on a network (measured: 0.27 to 0.30)."""
        total, short = self.config.split_epochs(student_epochs)
        runs = 2 if self.config.perturb_input else 1
        epochs = short if part.needs else max(1, total - short)
        return TrainingCost(epochs, self.config.batch_size, 0.3, runs * len(part.members))

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Train a multi-step bridge, or distil one."""
        from baselines.dbn.branches import distil_by_branches
        from baselines.dbn.training import BridgeTraining

        training = BridgeTraining(self.config, context, self.target_weights(part))
        if part.name.startswith("bridge"):
            return training.fit(self.denoiser(context, self.config.steps))
        teacher = context.load(self.denoiser(context, self.config.steps), part.needs[0])
        student = self.denoiser(context, 1)
        if part.name.startswith("onestep"):
            return training.distil(student, teacher)
        return distil_by_branches(training, student, teacher)

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The source once, then every bridge on its features and logits."""
        from baselines.dbn.training import evaluation_temperature
        from dbn_core.methods.predictors import BridgedSource

        config = self.config
        kind = DISTILLED_PART.get(config.distill, "bridge")
        steps = 1 if config.distill else config.steps
        names = [part.name for part in self.parts(size) if part.name.startswith(kind)]
        return BridgedSource(
            context.members[0],
            config.split_at,
            [context.load(self.denoiser(context, steps), name) for name in names],
            evaluation_temperature(config),
            # The distilled predictor makes no draw, in the released code neither.
            "none" if config.distill else config.sampler_noise,
        )

    def denoiser(self, context: Workspace, steps: int) -> Denoiser:
        """A fresh denoiser with ``steps`` steps."""
        from dbn_core.bridge.denoiser import Denoiser
        from dbn_core.bridge.schedule import step_variances
        from dbn_core.nets.score import ScoreNetwork

        config = self.config
        network = ScoreNetwork(
            context.feature_channels(config.split_at),
            context.classes,
            config.score_network,
            config.score_width,
            config.sees_state,
        )
        variances = step_variances(steps, config.beta_0, config.beta_1)
        return context.initialise(Denoiser(network, variances, config.prediction))

    def target_weights(self, part: Part) -> torch.Tensor | None:
        """Weights of the members in this bridge's target, or None for equal ones.

        With ``source_weight=once`` the mean over the L targets gives all L (members_per_bridge - 1) + 1 members the
        same weight; the released code's targets count the source L times.
        """
        import torch

        _, _, count = part.name.partition("of")
        if not count:
            return None
        further = self.config.members_per_bridge - 1
        each = int(count) / (int(count) * further + 1)
        return torch.tensor([1 - further * each] + [each] * further)
