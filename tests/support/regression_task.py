"""Regression as a task of its own, with its reference and a rival: all that a new kind of suite takes.

Gaussian mixtures over the number that a digit shows, scored by NLL and the continuous ranked probability score.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from torch import nn

from dbn_core import (
    Dataset,
    Method,
    Part,
    PredictContext,
    Score,
    Scores,
    Task,
    checked_arrays,
    predict_split,
    register,
    register_task,
)
from dbn_core.nets.spec import NetworkOptions


class MLP(NetworkOptions):
    """``[network]`` of a regression suite."""

    hidden: int = 16


@register_task("regression")
class Regression(Task):
    """A Gaussian mixture over the target of each example."""

    floor: float = 0.05  # least standard deviation

    scores: ClassVar[Any] = {
        "nll": Score("NLL", meaning="mean negative log-density of the target."),
        "crps": Score("CRPS", meaning="continuous ranked probability score of the mixture."),
        "rmse": Score("RMSE"),
    }
    headline, tested_scores, plotted_scores = "nll", ("nll", "crps"), ("nll", "crps")
    reference, reference_label, curves = "gaussian-ensemble", "GE", {"equivalent": "nll"}
    networks = MLP

    def new_network(self, spec, channels, image_size, classes, mean, std):
        inputs = channels * image_size[0] * image_size[1]
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, spec.hidden), nn.Tanh(), nn.Linear(spec.hidden, 2))

    def member_step(self, network, recipe, generator):
        return lambda batch: self.loss(network(batch.images), batch.labels)

    def loss(self, output, labels):
        mean, sd = self.parameters_of(output).unbind(-1)
        return -torch.distributions.Normal(mean, sd).log_prob(labels.float()).mean()

    def parameters_of(self, output):
        return torch.stack([output[..., 0], self.floor + nn.functional.softplus(output[..., 1])], -1)

    def predict(self, predictor, data: Dataset, device, generator, name):
        return {
            "test": self.parameters_of(predict_split(predictor, data.test, device)),
            "targets": data.test.labels.float(),
        }

    def accept(self, arrays, data):
        given = checked_arrays(arrays, {"test": (None, len(data.test), 2)})
        return {"test": torch.from_numpy(given["test"]).float(), "targets": data.test.labels.float()}

    def numbers(self, output):
        return output.movedim(-2, 0)

    def score(self, arrays, terms=None):
        (mean, sd), target = np.moveaxis(arrays["test"][:terms].astype(float), -1, 0), arrays["targets"]
        examples = {
            "nll": np.log(len(mean)) - logsumexp(norm.logpdf(target, mean, sd), axis=0),
            "crps": crps(mean, sd, target),
        }
        error = mean.mean(0) - target
        split = {"rmse": float(np.sqrt((error**2).mean()))}
        return Scores(examples=examples, split=split, ids=arrays.get("test_ids"))

    def trial(self):
        from dbn_core.tasks.classification import Classification

        return MLP(), Classification().trial()[1]


def crps(mean, sd, target):
    """Of Gaussian mixtures with terms [M, N] at targets [N] (Grimit et al., 2006, eq. 5)."""

    def a(gap, scale):
        z = gap / scale
        return 2 * scale * norm.pdf(z) + gap * (2 * norm.cdf(z) - 1)

    spread = a(mean[:, None] - mean, np.hypot(sd[:, None], sd)).mean((0, 1))
    return a(target - mean, sd).mean(0) - spread / 2


class Terms(nn.Module):
    """Networks whose outputs [B, 2] become [M, B, 2]."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([network(images) for network in self.networks])


@register("gaussian-ensemble")
class GaussianEnsemble(Method):
    """M members, each a term of the mixture."""

    task, title, reference, competes, nested = "regression", "GE", "Lakshminarayanan et al., 2017", False, True

    def members(self, size):
        return tuple(range(size))

    def terms(self, size):
        return size

    def predictor(self, size, context: PredictContext):
        return Terms([context.members[position] for position in range(size)])


@register("mean-student")
class MeanStudent(Method):
    """One network that learns from the targets once more, with the moments of its teachers."""

    task, title, reference = "regression", "Student", "nobody"

    def parts(self, size):
        return [Part("student", members=tuple(range(size)))]

    def fit(self, part, context):
        student = context.new_network()

        def step(batch):
            with torch.no_grad():
                taught = torch.stack([member(batch.images) for member in context.members]).mean(0)
            return nn.functional.mse_loss(student(batch.images), taught)

        context.train(student, step)
        return student

    def predictor(self, size, context):
        return Terms([context.load(context.new_network(), "student")])
