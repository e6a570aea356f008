"""Forest-VP: a diffusion of tables whose denoiser is one random forest a noise level (arXiv 2309.09968).

Forward, in coded columns: x_t = alpha_t x_0 + sigma_t e, log alpha_t = -t² (beta_max - beta_min) / 4 - t beta_min / 2,
sigma_t² = 1 - alpha_t².  The forest of level t predicts e from x_t; each of its trees is a member of the ensemble, and
a rule of :mod:`~dbn_core.generative.aggregate` makes one prediction of theirs at every step (arXiv 2601.11444).  The
forests know nothing of the rule: they are fitted once and serve all rules, and the first K of their trees are
an ensemble of K.

>>> from dbn_core.generative.aggregate import parse_rule
>>> from dbn_core.generative.tabular.data import load_table
>>> from dbn_core.generative.tabular.forest import ForestDiffusion, ForestOptions
>>> train, test = load_table("iris").split(seed=0)
>>> model = ForestDiffusion.fit(train, ForestOptions(trees=4, levels=5, duplicates=2), seed=0)
>>> fakes = {name: model.sample(30, parse_rule(name), seed=1) for name in ("arithmetic", "dominant")}
>>> fakes["dominant"].values.shape
(30, 5)
>>> model.first(2).pointwise(test, parse_rule("arithmetic"), seed=1).mse.shape
(5,)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from dbn_core.errors import SpecError
from dbn_core.generative.aggregate import Rule, State
from dbn_core.generative.tabular.coding import Coding
from dbn_core.generative.tabular.data import Array, Table
from dbn_core.generative.tabular.trees import Trees
from dbn_core.seeds import generator, seed_for


@dataclass(frozen=True)
class ForestOptions:
    """Settings of Forest-VP; the defaults are the paper's.

    Attributes:
        trees: M, members of the ensemble.
        depth: largest depth of a tree.
        levels: noise levels, equally spaced from ``first_time`` to 1; as many predictions make a sample.
        duplicates: how often each row is noised anew at each level.
        beta_min, beta_max: of the linear variance-preserving schedule.
        first_time: the lowest level, where the last step is Tweedie's.

    Raises:
        SpecError: for a count below 1, fewer than two levels, or a schedule that does not rise from above 0.
    """

    trees: int = 100
    depth: int = 7
    levels: int = 50
    duplicates: int = 100
    beta_min: float = 0.1
    beta_max: float = 8.0
    first_time: float = 1e-3

    def __post_init__(self) -> None:
        for field in fields(self)[:4]:
            least = 2 if field.name == "levels" else 1
            if (value := getattr(self, field.name)) < least:
                raise SpecError(f"Forest diffusion: '{field.name}' is {value}; it must be at least {least}.")
        if not 0 < self.beta_min <= self.beta_max or not 0 < self.first_time < 1:
            raise SpecError("Forest diffusion needs 0 < beta_min <= beta_max and 0 < first_time < 1.")

    @property
    def times(self) -> Array:
        """The levels' times, rising, float64 [levels]."""
        return np.linspace(self.first_time, 1, self.levels)

    def beta(self, t: float) -> float:
        """Rate of the forward process."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def signal_and_noise(self, t: float) -> tuple[float, float]:
        """alpha_t and sigma_t."""
        log_alpha = -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2
        return math.exp(log_alpha), math.sqrt(-math.expm1(2 * log_alpha))


@dataclass(frozen=True)
class Pointwise:
    """How well the noise is predicted, per level from the lowest, float64 [levels]; the truth has size 1.

    Attributes:
        mse: mean squared error, per coordinate: the loss that forests are fitted by.
        rms: root-mean-square of what is predicted: below 1 where the size of the noise is under-estimated.
    """

    mse: Array
    rms: Array


@dataclass(frozen=True)
class ForestDiffusion:
    """A fitted Forest-VP.

    Attributes:
        options: what it was fitted with.
        coding: between the table and its coded columns.
        forests: the forest of each level, from the lowest.
    """

    options: ForestOptions
    coding: Coding
    forests: tuple[Trees, ...]

    @classmethod
    def fit(
        cls, train: Table, options: ForestOptions | None = None, *, seed: int, n_jobs: int | None = None
    ) -> ForestDiffusion:
        """Fit the forests of all levels; ``n_jobs`` as in scikit-learn changes no bit of them.

        Raises:
            DataError: for a table without rows.
        """
        from sklearn.ensemble import RandomForestRegressor

        options = options or ForestOptions()
        coding = Coding.of(train)
        clean = np.repeat(coding.encode(train), options.duplicates, axis=0)
        forests = []
        for level, t in enumerate(options.times):
            draws = np.random.default_rng(seed_for(purpose="tabular/fit", seed=seed, level=level))
            noise = draws.standard_normal(clean.shape)
            alpha, sigma = options.signal_and_noise(t)
            forest = RandomForestRegressor(
                options.trees, max_depth=options.depth, random_state=int(draws.integers(2**31)), n_jobs=n_jobs
            )
            noised = (alpha * clean + sigma * noise).astype(np.float32)
            forests.append(Trees.of(forest.fit(noised, noise if coding.width > 1 else noise[:, 0])))
        return cls(options, coding, tuple(forests))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The trees of all levels one after the other, as tensors; see :meth:`from_state`."""
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
    def from_state(cls, train: Table, options: ForestOptions, state: Mapping[str, torch.Tensor]) -> ForestDiffusion:
        """The inverse of :meth:`state_dict`, for the table and options that were fitted."""
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
        """The ensemble of each forest's first trees: what a fit with so many trees gives.

        Raises:
            SpecError: when there are fewer.
        """
        if not 1 <= trees <= self.options.trees:
            raise SpecError(f"This forest diffusion has {self.options.trees} trees, so that {trees} cannot be taken.")
        forests = tuple(replace(forest, roots=forest.roots[:trees]) for forest in self.forests)
        return replace(self, options=replace(self.options, trees=trees), forests=forests)

    def noise(self, level: int, x: torch.Tensor, trees: torch.Tensor | None = None) -> torch.Tensor:
        """What each tree of a level predicts of x [N, ``coding.width``], float32 [M, N, ``coding.width``].

        With ``trees``, int64 [N], it is what that one tree predicts of each row, [N, ``coding.width``].
        """
        chosen = None if trees is None else trees.numpy()
        return torch.from_numpy(self.forests[level].predict(x.numpy(), chosen))

    @torch.no_grad()
    def sample(self, count: int, rule: Rule, *, seed: int) -> Table:
        """New rows, made by the rule.

        Start and injected noise depend on the seed alone, so that rules are compared on the same draws; of a rule that
        pools ends, each tree's trajectory has the common start and injected noise of its own.
        """
        draws = generator(purpose="tabular/sample", seed=seed)
        members = self.options.trees
        state = rule.start(members, count, generator(purpose="tabular/rule", seed=seed))
        start = torch.randn(count, self.coding.width, generator=draws)
        if rule.pools == "ends":
            own = torch.arange(members).repeat_interleave(count)
            ends = self._reverse(start.repeat(members, 1), lambda level, _, x: self.noise(level, x, own), draws)
            x = rule(ends.unflatten(0, (members, count)), state, 0)
        else:
            x = self._reverse(start, lambda level, step, x: self._pooled(level, x, rule, state, step), draws)
        return self.coding.decode(x.double().numpy())

    def _pooled(self, level: int, x: torch.Tensor, rule: Rule, state: State, step: int) -> torch.Tensor:
        """The rule's prediction; of a rule that follows one tree an example, the others are not asked."""
        trees = rule.choice(state, step)
        return rule(self.noise(level, x), state, step) if trees is None else self.noise(level, x, trees)

    def _reverse(
        self, x: torch.Tensor, predict: Callable[[int, int, torch.Tensor], torch.Tensor], draws: torch.Generator
    ) -> torch.Tensor:
        """Reverse Euler-Maruyama steps with ``predict(level, step, x)``, and Tweedie's formula at the lowest level."""
        times = self.options.times
        for step, level in enumerate(reversed(range(self.options.levels))):
            noise = predict(level, step, x)
            alpha, sigma = self.options.signal_and_noise(times[level])
            if level == 0:
                return (x - sigma * noise) / alpha
            h, beta = float(times[level] - times[level - 1]), self.options.beta(float(times[level]))
            x = x + h * beta * (x / 2 - noise / sigma) + math.sqrt(beta * h) * torch.randn(x.shape, generator=draws)
        raise AssertionError("there are at least two levels")

    @torch.no_grad()
    def pointwise(self, table: Table, rule: Rule, *, seed: int, duplicates: int = 10) -> Pointwise:
        """The rule's error in the noise of a table's rows, each noised so many times at each level.

        Raises:
            SpecError: for a rule that predicts no noise, since it pools the ends of trajectories.
        """
        if rule.pools == "ends":
            raise SpecError(f"Rule '{rule}' pools ends and predicts no noise: only rules that pool states have a loss.")
        clean = torch.from_numpy(self.coding.encode(table)).float().repeat(duplicates, 1)
        draws = generator(purpose="tabular/pointwise", seed=seed)
        choices = generator(purpose="tabular/pointwise/rule", seed=seed)
        mse, square = [], []
        for level, t in enumerate(self.options.times):
            alpha, sigma = self.options.signal_and_noise(t)
            noise = torch.randn(clean.shape, generator=draws)
            state = rule.start(self.options.trees, len(clean), choices)
            predicted = self._pooled(level, alpha * clean + sigma * noise, rule, state, 0)
            mse.append(float((predicted - noise).square().mean()))
            square.append(float(predicted.square().mean()))
        return Pointwise(np.array(mse), np.sqrt(square))
