"""Options of DBN: the paper's configuration, and the quirks of the released code with their repairs.

Tried on the suite cifar10-small and gone, since they were worse than the plain control (test NLL 0.705): half of a live
branch's logits dropped at random (0.729; a live branch as it is, 0.743), and the source's pooled last features as a
further condition (0.737).  Gone because nothing uses them: a uniform law of temperatures, a triangular noise schedule
(every published run has equal rates, where it is the linear one), and the source's own prediction averaged in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dbn_core import method
from dbn_core.aggregate import parse_rule
from dbn_core.errors import SpecError
from dbn_core.method import ADDED_LATER

# What the released code does, and what mends it.  Each entry can be set alone: ``dbn[preset=paper,ema=standard]``.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "temperature_per": "batch",  # one random temperature for a whole mini-batch
        "train_last_step": False,  # n = T is sampled from but never trained
        "prediction": "noise",  # targets about 100 (Z_1 - Z_0)
        "ema": "reversed",  # the average is in effect the current weights
        "sampler_noise": "forward",  # forward increment, at the last step too
        "mixup_per": "batch",
        "source_weight": "each",  # the source counts in the target of every bridge
        "keep": "best_accuracy",
    },
    "fixed": {
        "temperature_per": "example",
        "train_last_step": True,
        "prediction": "displacement",
        "ema": "standard",
        "sampler_noise": "none",
        "mixup_per": "example",
        "source_weight": "once",
        "keep": "last",
    },
}


class Switches(method.Config):
    """What the presets choose; see :data:`PRESETS`."""

    preset: Literal["paper", "fixed"] = Field("fixed", description="the released code's behaviour, or its repairs")
    # Filled in by the preset unless given.
    temperature_per: Literal["batch", "example"] = "example"
    train_last_step: bool = True
    prediction: Literal["noise", "displacement"] = "displacement"
    ema: Literal["reversed", "standard"] = "standard"
    sampler_noise: Literal["none", "posterior", "forward"] = "none"
    mixup_per: Literal["batch", "example"] = "example"
    source_weight: Literal["each", "once"] = "once"
    keep: Literal["last", "best_accuracy", "best_nll"] = "last"

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {**PRESETS.get(values.get("preset", "fixed"), {}), **values}
        return values


class DBNConfig(Switches):
    """Defaults are the CIFAR-10 configuration of the paper."""

    # The bridge: equations (1) to (3).
    steps: int = Field(5, ge=1, description="T, diffusion steps before distillation")
    group: int = Field(3, ge=2, description="members each bridge aims at, the source included")
    beta_0: float = Field(1e-4, gt=0, description="noise rate at the ensemble end")
    beta_1: float = Field(1e-4, gt=0, description="noise rate at the source end")
    temperature: float = Field(2.0, gt=0, description="lowest source temperature")
    temperature_spread: float = Field(0.4, ge=0, description="factor of its random part, which is Beta(1, 5)")
    # Variants of the paper's ablations.
    prior: Literal["source", "gaussian"] = Field("source", description="where bridges start: source logits or N(0, I)")
    process: Literal["bridge", "rectified_flow"] = Field("bridge", description="diffusion bridge, or straight flow")
    perturb_input: bool = Field(False, description="target of a mixed image: the ensemble on its dominant image")
    # The score network.
    at: str = Field("block1", description="block whose output conditions the score network")
    score_network: str = Field("v1.1.8", description="architecture of the score network")
    score_width: float = Field(1.0, gt=0, description="multiplier of its channels")
    # Dead as released, but not by mistake: a live branch learns to trust logits that the source has memorised.
    logit_branch: Literal["dead", "live"] = Field("dead", description="whether the network sees the logits, too")
    # Training: equation (4).
    loss: Literal["mse", "kl"] = Field("mse", description="squared error on logits, or KL of the predictions")
    lr: float = Field(2.5e-4, gt=0, description="peak learning rate (AdamW, no weight decay)")
    batch_size: int = Field(128, ge=2)
    mixup: float = Field(0.4, ge=0, description="alpha of mixup")
    cosine_length: float = Field(1.0, ge=1, description="length of the bridge's cosine in runs; 2 stops at half")
    epochs: int | None = Field(None, ge=2, description="bridge and distillation together; default: student budget")
    # Distillation to one step: equation (6).
    distill: bool | Literal["branches"] = Field(True, description="distil the T steps to one; branches: by B-DENSE")
    distill_share: float = Field(50 / 850, gt=0, lt=1, description="part of the epochs spent on distillation")
    distill_lr_factor: float = Field(0.1, gt=0)
    distill_alpha: float = Field(0.5, ge=0, le=1, description="weight of the multi-step teacher against the ensemble")
    # B-DENSE (arXiv 2602.15971), where distill=branches: see dbn_core.bridge.branches.
    branches: int | None = Field(
        None, ge=1, description="K, states that teach one student step; default: all", json_schema_extra=ADDED_LATER
    )
    branch_growth: float = Field(
        0.0, allow_inf_nan=False, description="a of the weights exp(a (k/K - 1))", json_schema_extra=ADDED_LATER
    )
    branch_weights: str | None = Field(
        None, description="the weights themselves, such as 1:2:4", json_schema_extra=ADDED_LATER
    )
    branch_distance: Literal["l2", "l1", "kl"] | None = Field(
        None, description="of a branch from its target; default: that of loss", json_schema_extra=ADDED_LATER
    )
    branch_compare: Literal["states", "endpoints"] = Field(
        "states", description="endpoints: squared distances of states times 1/A_k^2", json_schema_extra=ADDED_LATER
    )
    branch_targets: Literal["teacher", "members"] = Field(
        "teacher", description="states of the teacher, or ensembles of 2, 3, ... members", json_schema_extra=ADDED_LATER
    )
    branch_steps: int = Field(
        1, ge=1, description="S, steps of the student, taught on its own path", json_schema_extra=ADDED_LATER
    )
    branch_progressive: bool = Field(
        False, description="in rounds from T to T/K, ..., S steps", json_schema_extra=ADDED_LATER
    )
    # Several bridges: what the predictor makes of them; nothing here is read by training.
    replicas: int = Field(
        1, ge=1, description="bridges of each group of members, from different seeds", json_schema_extra=ADDED_LATER
    )
    combine: Literal["probability", "logit", "score"] = Field(
        "probability", description="level at which bridges become one prediction", json_schema_extra=ADDED_LATER
    )
    order: float = Field(
        1.0,
        allow_inf_nan=False,
        description="r of the mean of probabilities; 0: geometric, -1: harmonic",
        json_schema_extra=ADDED_LATER,
    )
    guidance: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="how far combine=logit goes from the source to the mean",
        json_schema_extra=ADDED_LATER,
    )
    rule: str = Field(
        "arithmetic",
        description="of combine=score, at every step; see dbn_core.aggregate",
        json_schema_extra=ADDED_LATER,
    )

    @property
    def student_steps(self) -> int:
        """Steps of the distilled student."""
        return self.branch_steps if self.distill == "branches" else 1

    def branch_rounds(self) -> list[tuple[int, int, int]]:
        """(steps of the teacher, steps of its student, branches of each of these) for each round of B-DENSE."""
        students, count = self.branch_steps, self.branches
        if self.branch_targets == "members":
            return [(self.steps, 1, count or self.group - 1)]
        if not self.branch_progressive:
            return [(self.steps, students, count or self.steps // students)]
        assert count is not None
        steps = [self.steps]
        while steps[-1] > students:
            steps.append(steps[-1] // count)
        return [(teacher, student, count) for teacher, student in pairwise(steps)]

    @field_validator("distill", mode="before")
    @classmethod
    def _distill_is_known(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lower() not in ("true", "false", "branches"):
            raise ValueError("write true, false or branches")
        return value

    @model_validator(mode="after")
    def _branches_fit(self) -> DBNConfig:
        if self.distill != "branches":
            self._refuse_given(
                (name for name in type(self).model_fields if name.startswith("branch")), "distill=branches"
            )
            return self
        students, count = self.branch_steps, self.branches
        if self.branch_targets == "members":
            if students > 1 or self.branch_progressive:
                raise ValueError("branch_targets=members teaches one step: leave out branch_steps, branch_progressive")
            if (count or 1) >= self.group:
                raise ValueError(
                    f"branches={count} ensembles of 2, 3, ... members need a group of {(count or 1) + 1} or more, "
                    f"not {self.group}: lower branches, or raise group"
                )
        elif self.steps % (students * (count or 1)):
            raise ValueError(
                f"steps={self.steps} is no multiple of branches x branch_steps = {count or 1} x {students}: "
                "every branch needs a state of the teacher's path"
            )
        elif self.branch_progressive and not _is_power(self.steps // students, count or 1):
            raise ValueError(
                f"branch_progressive goes from steps={self.steps} to {students} by factors of branches={count}: "
                "make steps = branch_steps x branches^rounds, with 2 branches or more"
            )
        given, heads = self.branch_weight_list, self.branch_rounds()[0][2]
        if given is not None and len(given) != heads:
            raise ValueError(f"branch_weights={self.branch_weights} has {len(given)} weights for {heads} branches")
        return self

    @property
    def branch_weight_list(self) -> list[float] | None:
        """Explicit weights of the branches, with sum 1; None: those of ``branch_growth``."""
        if self.branch_weights is None:
            return None
        if self.branch_growth:
            raise ValueError("branch_growth and branch_weights say the same: give one of them")
        try:
            weights = [float(weight) for weight in self.branch_weights.split(":")]
        except ValueError:
            weights = []
        total = sum(weights)
        if not (weights and min(weights) >= 0 and 0 < total < math.inf):
            raise ValueError(f"branch_weights={self.branch_weights}: write numbers of 0 or more, such as 1:2:4")
        return [weight / total for weight in weights]

    @model_validator(mode="after")
    def _combination_fits(self) -> DBNConfig:
        for option, level in (("order", "probability"), ("guidance", "logit"), ("rule", "score")):
            if self.combine != level:
                self._refuse_given([option], f"combine={level}")
        try:
            rule = parse_rule(self.rule)
        except SpecError as error:
            raise ValueError(str(error).rstrip(".")) from error
        if rule.pools == "ends":
            raise ValueError(f"rule {rule.name} pools what comes out: write combine=logit in its place")
        return self

    def _refuse_given(self, names: Iterable[str], where: str) -> None:
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is read where {where} alone: leave it out, or set that")

    @model_validator(mode="after")
    def _flow_is_straight(self) -> DBNConfig:
        straight = (self.prediction, self.loss, self.sampler_noise) == ("displacement", "mse", "none")
        if self.process == "rectified_flow" and not straight:
            raise ValueError("a rectified flow needs prediction=displacement, loss=mse and sampler_noise=none")
        return self


def _is_power(number: int, base: int) -> bool:
    """Whether it is base, base^2, ..., for a base of 2 or more."""
    while base > 1 and number > base and number % base == 0:
        number //= base
    return base > 1 and number == base
