"""EDFM: a flow that generates one teacher's logits after another from noise, on the features of a student.

Park et al., ICML 2025, "Ensemble Distribution Distillation via Flow Matching".  The student is that of ``ed``, frozen.
The flow of :mod:`dbn_core.nets.logit_flow` learns from the centred logits of one teacher for each image, drawn anew in
every step; a prediction is the mean softmax of several draws, each of which takes several calls of the flow.

Ours differs in three things: the paper's teachers are draws of SWAG, its flow is trained by SGD for 1,000 epochs, and
its noise differs from image to image.  With ``target=mean`` all teachers give their mean prediction, and the draws
should agree: what the distribution adds to its mean.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from baselines.ensemble_distillation import EnsembleDistillation
from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext, Workspace
    from dbn_core.nets.logit_flow import LogitFlow
    from dbn_core.nets.network import Network


@register("edfm")
class FlowMatchingDistillation(Method):
    """A flow from noise to the teachers' logits, on the features of a distilled student (EDFM)."""

    same_network = "none"
    title = "EDFM"
    needs_last_layer = True
    reference = "Park et al., ICML 2025, Ensemble Distribution Distillation via Flow Matching"
    networks = "runs 1 and a small flow; trains both"

    class Config(EnsembleDistillation.Config):
        """The options of ``ed`` are the student's.  On a small network the paper's sampler costs several networks."""

        draws: int = Field(32, ge=1, description="logits that are drawn for a prediction, its terms")
        intervals: int = Field(7, ge=1, description="of the sampler: 2 intervals - 1 calls of the flow for each draw")
        flow_width: int = Field(256, ge=1, description="width of the flow's four hidden layers")
        noise: float = Field(4.0, gt=0, description="standard deviation of the noise that a flow starts from")
        data_std: float = Field(1.0, gt=0, description="standard deviation that the logits are taken to have")
        target: Literal["member", "mean"] = Field("member", description="what is drawn: one teacher, or their mean")
        flow_mixup: float = Field(
            0.4, ge=0, allow_inf_nan=False, description="alpha of per-example mixup while the flow is trained"
        )
        flow_lr: float = Field(1e-3, gt=0, description="peak learning rate of the flow (AdamW, no weight decay)")
        flow_epochs: int | None = Field(None, ge=1, description="length; default: the suite's student budget")

    def parts(self, size: int) -> list[Part]:
        """The student, which is ED's, then the flow."""
        student = self._distillation.shared_part(size)
        flow = dataclasses.replace(
            student,
            name="flow",
            needs=(student.name,),
            settings=self.config.key(exclude={"draws", "intervals"}),
            teacher_mixup=self.config.flow_mixup,
            owner=None,
        )
        return [student, flow]

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """The student as ``ed`` trains it, or the flow on its features."""
        import torch

        from dbn_core.bridge.process import target_logits
        from dbn_core.methods.context import freeze
        from dbn_core.nets.logit_flow import draw_flow_times

        if part.name == "student":
            return self._distillation.fit(part, context)
        config, draws = self.config, context.generator("train")
        student = freeze(context.load(self._distillation.student(context), "student"))
        flow, (read, _) = context.initialise(self._flow(context)), student.last_layer()

        def step(batch: Batch) -> torch.Tensor:
            teachers = context.teach(batch)
            count, examples = teachers.shape[:2]
            if config.target == "mean":
                logits = target_logits(teachers)
            else:
                chosen = torch.randint(count, (examples,), generator=draws).to(teachers.device)
                logits = teachers[chosen, torch.arange(examples, device=teachers.device)]
                logits = logits - logits.mean(-1, keepdim=True)
            with torch.no_grad():
                features = read(batch.images)
            noise = torch.randn(logits.shape, generator=draws).to(logits)
            return flow.loss(features, logits, draw_flow_times(examples, draws).to(logits), noise)

        recipe = context.student_recipe(
            optimizer="adamw",
            lr=config.flow_lr,
            weight_decay=0.0,
            epochs=config.flow_epochs,
            mixup=config.flow_mixup,
            **config.augmentation(),
        )
        predictor = self._predictor(student, flow, context)
        context.train(
            flow, step, recipe, step_generator=draws, predict=lambda current, images: predictor(images).logsumexp(0)
        )
        return flow

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The student's features once, then all draws together."""
        return self._predictor(
            context.load(self._distillation.student(context), "student"),
            context.load(self._flow(context), "flow"),
            context,
        )

    def _predictor(self, student: Network, flow: LogitFlow, context: Workspace) -> nn.Module:
        import torch

        from dbn_core.nets.logit_flow import FlowingLogits

        draws = context.generator("noise")
        noise = torch.randn(self.config.draws, context.classes, generator=draws).to(context.device)
        return FlowingLogits(student, flow, noise, self.config.intervals)

    @property
    def _distillation(self) -> EnsembleDistillation:
        return EnsembleDistillation.within(self.config)

    def _flow(self, context: Workspace) -> LogitFlow:
        from dbn_core.nets.logit_flow import LogitFlow

        config, (_, linear) = self.config, self._distillation.student(context).last_layer()
        return LogitFlow(context.classes, linear.in_features, config.flow_width, config.noise, config.data_std)
