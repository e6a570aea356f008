"""Forest-VP: a diffusion of tables whose denoiser is one random forest a noise level (arXiv 2309.09968).

Forward, in coded columns: x_t = alpha_t x_0 + sigma_t e, log alpha_t = -t² (beta_max - beta_min) / 4 - t beta_min / 2,
sigma_t² = 1 - alpha_t².  The forest of level t predicts e from x_t.  Its trees are the members of an ensemble, and a
rule of :mod:`~dbn_core.generative.aggregate` combines their predictions at every step (arXiv 2601.11444).  Forests do
not depend on the rule: one fit serves all rules, and the first K trees are an ensemble of K.

>>> from dbn_core.generative.aggregate import parse_rule
>>> from dbn_core.generative.tabular.data import load_table
>>> table = load_table("iris")
>>> model = ForestDiffusion.fit(table, ForestOptions(trees=4, levels=5, duplicates=2), seed=0)
>>> fakes = {name: model.sample(30, parse_rule(name), seed=1) for name in ("arithmetic", "dominant")}
>>> fakes["dominant"].values.shape
(30, 5)
>>> predictor = ForestPredictor(model.first(2), parse_rule("median"))
>>> predictor(torch.zeros(4, 5, 1, 1)).shape, predictor.noise_error(table)["mse"].shape
(torch.Size([4, 5, 1, 1]), (5,))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from dbn_core.generative.aggregate import Rule, RuleState
from dbn_core.generative.tabular.coding import Coding
from dbn_core.generative.tabular.data import Array, DataTable
from dbn_core.generative.tabular.trees import Trees
from dbn_core.rng import generator, seed_for


@dataclass(frozen=True)
class ForestOptions:
    """Settings of Forest-VP; the defaults are the paper's.

    Attributes:
        trees: M, members of the ensemble.
        depth: largest depth of a tree.
        levels: noise levels, equally spaced from ``first_time`` to 1; a sample takes one prediction for each.
        duplicates: noised copies of each row at each level.
        beta_min, beta_max: of the linear variance-preserving schedule.
        first_time: the lowest level, where the last step is Tweedie's.
    """

    trees: int = 100
    depth: int = 7
    levels: int = 50
    duplicates: int = 100
    beta_min: float = 0.1
    beta_max: float = 8.0
    first_time: float = 1e-3

    @property
    def times(self) -> Array:
        """Rising times of the levels, float64 [levels]."""
        return np.linspace(self.first_time, 1, self.levels)

    def beta(self, t: float) -> float:
        """Rate of the forward process."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def signal_and_noise(self, t: float) -> tuple[float, float]:
        """alpha_t and sigma_t."""
        log_alpha = -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2
        return math.exp(log_alpha), math.sqrt(-math.expm1(2 * log_alpha))


@dataclass(frozen=True)
class ForestDiffusion:
    """A fitted Forest-VP.

    Attributes:
        options: of the fit.
        coding: between the table and its coded columns.
        forests: the forest of each level, from the lowest.
    """

    options: ForestOptions
    coding: Coding
    forests: tuple[Trees, ...]

    @classmethod
    def fit(cls, train: DataTable, options: ForestOptions, *, seed: int) -> ForestDiffusion:
        """Fit the forests of all levels."""
        from sklearn.ensemble import RandomForestRegressor

        coding = Coding.of(train)
        clean = np.repeat(coding.encode(train), options.duplicates, axis=0)
        forests = []
        for level, t in enumerate(options.times):
            draws = np.random.default_rng(seed_for(purpose="tabular/fit", seed=seed, level=level))
            noise = draws.standard_normal(clean.shape)
            alpha, sigma = options.signal_and_noise(t)
            forest = RandomForestRegressor(
                options.trees, max_depth=options.depth, random_state=int(draws.integers(2**31))
            )
            noised = (alpha * clean + sigma * noise).astype(np.float32)
            forests.append(Trees.of(forest.fit(noised, noise if coding.width > 1 else noise[:, 0])))
        return cls(options, coding, tuple(forests))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The concatenated trees of all levels, as tensors; see :meth:`from_state`."""
        levels = self.forests
        sizes = [len(forest.feature) for forest in levels]
        arrays = {
            name: np.concatenate([getattr(forest, name) for forest in levels])
            for name in ("roots", "feature", "threshold", "children", "values")
        }
        numbers = {"nodes": np.array(sizes), "depth": np.array([forest.depth for forest in levels])}
        small = {name: array.astype(np.int32) for name, array in arrays.items() if array.dtype.kind == "i"}
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in {**arrays, **small, **numbers}.items()}

    @classmethod
    def from_state(cls, train: DataTable, options: ForestOptions, state: Mapping[str, torch.Tensor]) -> ForestDiffusion:
        """The inverse of :meth:`state_dict`, for the table and options of the fit."""
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        ends = np.cumsum(arrays["nodes"])
        forests = []
        for level, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            roots = arrays["roots"][level * options.trees : (level + 1) * options.trees]
            forests.append(
                Trees(
                    roots.astype(np.intp),
                    arrays["feature"][start:end].astype(np.intp),
                    arrays["threshold"][start:end],
                    arrays["children"][start:end].astype(np.intp),
                    arrays["values"][start:end],
                    int(arrays["depth"][level]),
                )
            )
        return cls(options, Coding.of(train), tuple(forests))

    def first(self, trees: int) -> ForestDiffusion:
        """The first trees of each forest: the same as a fit with so many trees."""
        forests = tuple(replace(forest, roots=forest.roots[:trees]) for forest in self.forests)
        return replace(self, options=replace(self.options, trees=trees), forests=forests)

    def noise(self, level: int, x: torch.Tensor, trees: torch.Tensor | None = None) -> torch.Tensor:
        """Predictions of each tree of a level for x [N, ``coding.width``], float32 [M, N, ``coding.width``].

        With ``trees``, int64 [N], row n is predicted by tree ``trees[n]`` alone: [N, ``coding.width``].
        """
        chosen = None if trees is None else trees.numpy()
        return torch.from_numpy(self.forests[level].predict(x.numpy(), chosen))

    @torch.no_grad()
    def sample(self, count: int, rule: Rule, *, seed: int) -> DataTable:
        """New rows, by the rule.

        The start and the injected noise depend on the seed alone, so rules are compared on the same draws.  With a rule
        that pools ends, each tree has its own trajectory and noise, from a common start.
        """
        draws = generator(purpose="tabular/sample", seed=seed)
        members = self.options.trees
        state = rule.start(members, count, generator(purpose="tabular/rule", seed=seed))
        start = torch.randn(count, self.coding.width, generator=draws)
        if rule.pools == "ends":
            own = torch.arange(members).repeat_interleave(count)
            starts = start.repeat(members, 1)
            ends = sample_forest(lambda x, level, step: self.noise(level, x, own), starts, self.options, draws)
            x = rule(ends.reshape(members, count, -1), state, 0)
        else:
            x = sample_forest(
                lambda x, level, step: self._combined(level, x, rule, state, step), start, self.options, draws
            )
        return self.coding.decode(x.double().numpy())

    def _combined(self, level: int, x: torch.Tensor, rule: Rule, state: RuleState, step: int) -> torch.Tensor:
        """The rule's prediction; a rule that follows one tree an example runs that tree alone."""
        trees = rule.choice(state, step)
        return rule(self.noise(level, x), state, step) if trees is None else self.noise(level, x, trees)

    @torch.no_grad()
    def noise_error(self, table: DataTable, rule: Rule, *, seed: int, duplicates: int = 10) -> dict[str, Array]:
        """Error of the noise that the rule predicts for a table, with each row noised ``duplicates`` times a level.

        ``mse``: mean squared error per coordinate, the loss of the forests; ``rms``: root-mean-square of the
        prediction, below 1 where the size of the noise is under-estimated.  Each is per level from the lowest, float64
        [levels].  A rule that pools ends predicts no noise, and has neither.
        """
        if rule.pools == "ends":
            return {}
        clean = torch.from_numpy(self.coding.encode(table)).float().repeat(duplicates, 1)
        draws = generator(purpose="tabular/pointwise", seed=seed)
        choices = generator(purpose="tabular/pointwise/rule", seed=seed)
        mse, square = [], []
        for level, t in enumerate(self.options.times):
            alpha, sigma = self.options.signal_and_noise(t)
            noise = torch.randn(clean.shape, generator=draws)
            state = rule.start(self.options.trees, len(clean), choices)
            predicted = self._combined(level, alpha * clean + sigma * noise, rule, state, 0)
            mse.append(float((predicted - noise).square().mean()))
            square.append(float(predicted.square().mean()))
        return {"mse": np.array(mse), "rms": np.sqrt(square)}


def sample_forest(
    estimator: Callable[[torch.Tensor, int, int], torch.Tensor],
    x: torch.Tensor,
    schedule: ForestOptions,
    generator: torch.Generator,
) -> torch.Tensor:
    """Reverse Euler-Maruyama steps from the highest level down, and Tweedie's formula at the lowest.

    Args:
        estimator: noise [N, W] at (x, level, step).
        x: the start, standard normal [N, W].
        schedule: levels and rates.
        generator: source of the injected noise.
    """
    times = schedule.times
    for step, level in enumerate(range(schedule.levels - 1, -1, -1)):
        noise = estimator(x, level, step)
        alpha, sigma = schedule.signal_and_noise(times[level])
        if level > 0:
            h, beta = float(times[level] - times[level - 1]), schedule.beta(float(times[level]))
            drawn = torch.randn(x.shape, generator=generator)
            x = x + h * beta * (x / 2 - noise / sigma) + math.sqrt(beta * h) * drawn
    return (x - sigma * noise) / alpha


class ForestPredictor(nn.Module):
    """New rows of the table, as many as the input [B, D, 1, 1] has; torch's global generator seeds the draws."""

    def __init__(self, model: ForestDiffusion, rule: Rule) -> None:
        super().__init__()
        self.model, self.rule = model, rule

    def forward(self, examples: torch.Tensor) -> torch.Tensor:
        """Rows [B, D, 1, 1]; the values of ``examples`` are not used."""
        seed = int(torch.randint(2**31, (1,)))
        rows = self.model.sample(len(examples), self.rule, seed=seed).values
        return torch.from_numpy(rows).to(examples)[:, :, None, None]

    def noise_error(self, table: DataTable) -> dict[str, Array]:
        """As :meth:`ForestDiffusion.noise_error`."""
        return self.model.noise_error(table, self.rule, seed=0)
