"""What-if ensembles: weighted means of stored predictions, and the cheapest ones that reach a deep ensemble.

Nothing is trained.  Weights are chosen on the validation split by greedy selection with replacement (Caruana et al.,
ICML 2004), scores are those of the test split.  The cost of a mixture is the sum of its results' costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.results.external.cells import External, cost_of, kind_of
from benchmarks.results.external.comparing import unplanned_cell
from benchmarks.results.pairing import CellResult, Pairing, by_method
from benchmarks.results.pools import MemberEffects, pool_effects
from benchmarks.results.rows import add_equivalents, all_cells, score_stored
from benchmarks.statistics import Interval
from benchmarks.store.artefacts import Store
from benchmarks.suite.names import cells_of_result
from benchmarks.suite.plan import Cell, Plan
from dbn_core.errors import SpecError
from dbn_core.metrics.scores import Array, mixture_log_probs
from dbn_core.tasks.class_scores import score_arrays

_DRAWS = 40  # of the greedy selection: the smallest weight is 1 / 40
_REPETITIONS = 3  # a result with fewer is not selected


@dataclass(frozen=True)
class ScoredMixture:
    """Scores of a mixture on the test split, over the repetitions that all of its results have.

    Attributes:
        weights: of the results, with a sum of 1.
        n: repetitions.
        macs: multiply-adds of one prediction, the sum of the results'; members that several share are counted for each.
        macs_rel: the same, relative to one network.
        validation_nll: in nats, by which mixtures are selected.
        acc, nll, cnll: accuracy as a fraction; NLL in nats, raw and after temperature scaling on validation.
        dee_raw, dee_cal: deep-ensemble equivalents in members.
    """

    weights: dict[str, float]
    n: int
    macs: float
    macs_rel: float
    validation_nll: float
    acc: Interval
    nll: Interval
    cnll: Interval
    dee_raw: Interval
    dee_cal: Interval

    @property
    def title(self) -> str:
        """For tables: ``0.60 DE@2 + 0.40 ED@8``."""
        return " + ".join(f"{weight:.2f} {name}" for name, weight in self.weights.items())


@dataclass(frozen=True)
class _Result:
    """A stored result: its cells by repetition, its cost, and log p(label) of its mean prediction, [R, V]."""

    cells: dict[int, Cell]
    macs: float
    validation: Array


class MixtureSelection:
    """All mixtures of a suite's stored results.

    Args:
        plan: of a suite of classification.

    Raises:
        SpecError: the suite has no classes, or the store has no deep ensembles.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        if plan.suite.task.name != "classification":
            raise SpecError(f"'{plan.suite.name}' is a suite of {plan.suite.task.name}: only class probabilities mix.")
        self._plan, self._store, self._cells = plan, store, all_cells(plan, store)
        reference = [cell for cell in plan.cells if cell.is_reference]
        self._references, _ = score_stored(plan.suite.task, reference, store)
        ones = [result.cell for result in self._references if result.cell.size == 1]
        if not ones:
            raise SpecError(f"The store has no deep ensembles of '{plan.suite.name}': {plan.remedy()}")
        self._one = self._macs(ones[0])

    @property
    def sizes(self) -> list[int]:
        """Of the stored deep ensembles."""
        return sorted({result.cell.size for result in self._references})

    def score(self, weights: Mapping[str, float]) -> ScoredMixture:
        """Score one mixture.

        Args:
            weights: by result, METHOD@SIZE; positive, and normalised to a sum of 1.

        Raises:
            SpecError: no result is named, one does not exist, or a weight is not positive.
            ArtefactError: the predictions of a result are not stored.
        """
        if not weights or not all(np.isfinite(weight) and weight > 0 for weight in weights.values()):
            raise SpecError("Name at least one result, each with a positive weight, as in DE@2=0.5.")
        found = {name: cells_of_result(self._cells, name, self._plan.suite.name) for name in weights}
        cells = {name: {cell.repetition: cell for cell in group} for name, group in found.items()}
        repetitions = sorted(set.intersection(*(set(own) for own in cells.values())))
        total = sum(weights.values())
        shares = {name: weight / total for name, weight in weights.items()}
        results, validation = [], []
        for repetition in repetitions:
            chosen = {name: cells[name][repetition] for name in weights}
            arrays = self._mixed({name: (cell, shares[name]) for name, cell in chosen.items()})
            members = tuple(dict.fromkeys(key for cell in chosen.values() for key in cell.members))
            results.append(CellResult(unplanned_cell(repetition, members), score_arrays(arrays)))
            picked = np.take_along_axis(arrays["validation"][0], arrays["validation_labels"][:, None], 1)
            validation.append(-picked.mean())
        groups = by_method([*self._references, *results])
        pairing, key = Pairing(groups, self._effects), (results[0].cell.spec, results[0].cell.size)
        row: dict[str, Any] = {"method": key[0], "size": key[1]}
        add_equivalents(self._plan.suite.task, [row], groups, pairing)
        macs = sum(self._macs(group[0]) for group in found.values())

        def interval(column: str) -> Interval:
            return Interval(row[column], row[f"{column}_low"], row[f"{column}_high"])

        return ScoredMixture(
            *(shares, len(repetitions), macs, macs / self._one, float(np.mean(validation))),
            *(pairing.mean(score, key) for score in ("acc", "nll", "cnll")),
            *(interval(column) for column in ("dee_raw", "dee_cal")),
        )

    def cheapest(self, sizes: Sequence[int]) -> dict[int, ScoredMixture | None]:
        """For each size M, the cheapest selected mixture whose validation NLL is at most that of DE-M.

        Budgets are tried from one network upwards, in steps of a quarter, below the cost of DE-M.  None: there is no
        such mixture.

        Raises:
            SpecError: there is no deep ensemble of a size.
        """
        candidates = self._candidates
        found: dict[int, ScoredMixture | None] = {}
        for size in sizes:
            name = next((name for name in candidates if self._is_reference(candidates[name], size)), None)
            if name is None:
                raise SpecError(f"'{self._plan.suite.name}' has no deep ensemble of size {size} to reach.")
            goal, cost = _nll(candidates[name].validation), candidates[name].macs
            found[size] = None
            for budget in np.arange(1.0, cost / self._one, 0.25) * self._one:
                chosen = _greedy(candidates, budget)
                if chosen and _mean_nll(candidates, chosen) <= goal:
                    found[size] = self.score(chosen)
                    break
        return found

    def best(self, budget: float) -> ScoredMixture:
        """The selected mixture that costs at most ``budget`` times one network.

        Raises:
            SpecError: no stored result is that cheap.
        """
        chosen = _greedy(self._candidates, budget * self._one)
        if not chosen:
            raise SpecError(f"No result of '{self._plan.suite.name}' costs {budget:g} times one network or less.")
        return self.score(chosen)

    @cached_property
    def _effects(self) -> dict[str, MemberEffects]:
        return pool_effects(self._plan, self._store)

    @cached_property
    def _candidates(self) -> dict[str, _Result]:
        """Results with enough repetitions, on the repetitions that all of them have."""
        groups: dict[str, dict[int, Cell]] = {}
        for cell in self._cells:
            stored = self._store.has(kind_of(cell), cell.predictions) and "macs" in cost_of(self._store, cell)
            if stored and (kind_of(cell) != External.name or "validation" in self._arrays(cell)):
                groups.setdefault(f"{cell.label}@{cell.size}", {})[cell.repetition] = cell
        least = min(_REPETITIONS, self._plan.suite.repetitions)
        groups = {name: cells for name, cells in groups.items() if len(cells) >= least}
        shared = sorted(set.intersection(*(set(cells) for cells in groups.values()))) if groups else []
        found = {}
        for name, cells in groups.items():
            rows = [self._log_likelihood(cells[repetition]) for repetition in shared]
            found[name] = _Result(cells, self._macs(cells[shared[0]]), np.stack(rows))
        return found

    def _arrays(self, cell: Cell) -> Mapping[str, Array]:
        return self._store.arrays(kind_of(cell), cell.predictions)

    def _log_likelihood(self, cell: Cell) -> Array:
        """Log p(label) on validation, [V]."""
        stored = self._arrays(cell)
        mean = mixture_log_probs(stored["validation"][: cell.terms])
        return np.take_along_axis(mean, stored["validation_labels"][:, None], 1)[:, 0]

    def _mixed(self, shares: Mapping[str, tuple[Cell, float]]) -> dict[str, Array]:
        """Predictions of the mixture on both splits, as one term."""
        arrays: dict[str, Array] = {}
        logs: dict[str, list[Array]] = {"test": [], "validation": []}
        for cell, share in shares.values():
            stored = self._arrays(cell)
            if "validation" not in stored:
                raise SpecError(f"{cell.title} was added without validation predictions, which a mixture needs.")
            for split, terms in logs.items():
                terms.append(mixture_log_probs(stored[split][: cell.terms]) + np.log(share))
                arrays[f"{split}_labels"] = stored[f"{split}_labels"]
        return arrays | {split: np.logaddexp.reduce(np.stack(terms))[None] for split, terms in logs.items()}

    def _is_reference(self, result: _Result, size: int) -> bool:
        cell = next(iter(result.cells.values()))
        return cell.is_reference and cell.size == size

    def _macs(self, cell: Cell) -> float:
        cost = cost_of(self._store, cell)
        if "macs" not in cost:
            raise SpecError(f"The cost of {cell.title} is not stored: {self._plan.remedy('counts it')}")
        return float(cost["macs"])


def _greedy(results: Mapping[str, _Result], budget: float) -> dict[str, float]:
    """Shares of the results, drawn one after the other, each the one that lowers the validation NLL most.

    A method enters with one of its sizes, since sizes share members.  Empty: nothing fits the budget.
    """
    drawn: Counter[str] = Counter()
    total, best, spent = np.zeros(()), np.inf, 0.0
    shares: dict[str, float] = {}
    for count in range(1, _DRAWS + 1):
        methods = {name.rpartition("@")[0] for name in drawn}
        open_ = {
            name: result
            for name, result in results.items()
            if name in drawn or (name.rpartition("@")[0] not in methods and spent + result.macs <= budget)
        }
        if not open_:
            return {}
        tried = {name: -np.log((total + np.exp(each.validation)) / count).mean() for name, each in open_.items()}
        name = min(tried, key=lambda each: tried[each])
        spent += 0.0 if name in drawn else results[name].macs
        drawn[name] += 1
        total = total + np.exp(results[name].validation)
        if tried[name] < best:
            best, shares = tried[name], {each: number / count for each, number in drawn.items()}
    return shares


def _mean_nll(results: Mapping[str, _Result], shares: Mapping[str, float]) -> float:
    mixed = sum(share * np.exp(results[name].validation) for name, share in shares.items())
    return _nll(np.log(mixed))


def _nll(log_likelihood: Array) -> float:
    return -float(log_likelihood.mean())
