"""Distances between generated and real rows: pure functions of tables.

Distances are Gower's: the L1 distance of columns scaled by the training ranges, where two categories differ by 1.

>>> from dbn_core.generative.tabular.data import load_table
>>> from dbn_core.generative.metrics.tables import coverage, gower_points, wasserstein
>>> table = load_table("iris")
>>> train, test = (table.with_values(table.values[start::2]) for start in (0, 1))
>>> real, held_out = gower_points(train, train), gower_points(test, train)
>>> wasserstein(real, real)
0.0
>>> 0.1 < wasserstein(held_out, real) < 0.4  # the distance of real rows to each other
True
>>> coverage(held_out, held_out)
1.0
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from dbn_core.errors import SpecError
from dbn_core.generative.tabular.coding import Coding
from dbn_core.generative.tabular.data import Array, DataTable
from dbn_core.rng import seed_for


def table_scores(
    fake: DataTable, other_fake: DataTable, train: DataTable, test: DataTable, *, seed: int
) -> dict[str, float]:
    """All scores of a generated table; ``other_fake`` is a second one of the same generator.

    ``w1_test``, ``w1_train``: Wasserstein-1.  ``coverage_test``, ``coverage_train``: in [0, 1].  ``downstream``: mean
    over learners of F1 or R² on test.  ``detection``: mean over learners of the balanced accuracy in separating fake
    from real; 0.5 is best.
    """
    points, real, held_out = (gower_points(rows, train) for rows in (fake, train, test))
    return {
        "w1_test": wasserstein(held_out, points),
        "w1_train": wasserstein(real, points),
        "coverage_test": coverage(held_out, points),
        "coverage_train": coverage(real, points),
        "downstream": float(np.mean(list(downstream(fake, test, seed=seed).values()))),
        "detection": float(np.mean(list(detection_accuracy(train, fake, test, other_fake, seed=seed).values()))),
    }


def gower_points(table: DataTable, train: DataTable) -> Array:
    """Points [N, E] whose L1 distance is Gower's: scaled by the ranges of ``train``, categories half one-hot."""
    coding = Coding.of(train)
    span = np.where(coding.high > coding.low, coding.high - coding.low, 1.0)
    parts = []
    for index, column in enumerate(train.columns):
        values = table.values[:, index, None]
        if column.kind == "categorical":
            parts.append((values == np.arange(column.categories)) / 2)
        else:
            parts.append((values - coding.low[index]) / span[index])
    return np.concatenate(parts, axis=1)


def _distances(a: Array, b: Array) -> Array:
    """L1 distances [N, M]."""
    from scipy.spatial.distance import cdist

    return cdist(a, b, "cityblock")


def wasserstein(a: Array, b: Array) -> float:
    """Exact Wasserstein-1 distance with L1 cost between the empirical distributions of points [N, E] and [M, E]."""
    try:
        import ot
    except ImportError as error:
        raise SpecError("Scores of tables need POT: run `pip install -e '.[generative]'` in the clone.") from error

    cost = _distances(a, b)
    weights = (np.full(len(points), 1 / len(points)) for points in (a, b))
    return max(0.0, float(ot.emd2(*weights, cost, numItermax=10_000_000)))


def coverage(real: Array, fake: Array) -> float:
    """Share of real points [N, E] with a fake one [M, E] nearer than their k-th real neighbour (Naeem et al., 2020).

    k is the smallest for which the real points cover at least 95 % of themselves: 1, unless rows are repeated.
    """
    nearest = _distances(real, fake).min(1)
    radii = np.sort(_distances(real, real), axis=1)  # column 0 is the point itself, column k its k-th neighbour
    covered = (radii[:, 1:] > 0).mean(0) >= 0.95
    neighbours = int(covered.argmax()) + 1 if covered.any() else len(real) - 1
    return float((nearest < radii[:, neighbours]).mean())


def downstream(train: DataTable, test: DataTable, *, seed: int) -> dict[str, float]:
    """Scores on ``test`` of learners fitted on ``train``, generated or real: macro F1 of a class, R² of a number.

    Learners: ``linear`` (logistic without penalty, or least squares), ``adaboost``, ``forest`` (depth 28).  F1 is 0
    where the training rows lack a class of the test rows, as in ForestDiffusion.
    """
    from sklearn.metrics import f1_score, r2_score

    x, x_test = _features(train, train.columns), _features(test, train.columns)
    y, y_test = train.target, test.target
    scores = {}
    for name, learner in _learners(train.classifies, seed).items():
        if not train.classifies:
            scores[name] = float(r2_score(y_test, _fitted(learner, x, y).predict(x_test)))
        elif np.isin(y_test, y).all():
            several = len(np.unique(y)) > 1
            predicted = _fitted(learner, x, y).predict(x_test) if several else np.full(len(y_test), y[0])
            scores[name] = float(f1_score(y_test, predicted, average="macro"))
        else:
            scores[name] = 0.0
    return scores


def detection_accuracy(
    real: DataTable, fake: DataTable, real_test: DataTable, fake_test: DataTable, *, seed: int
) -> dict[str, float]:
    """Balanced accuracy of learners in separating generated from real rows, on held-out rows.

    0.5 is the best value of a generator, 1 the worst.  The learners are those of :func:`downstream`.
    """
    from sklearn.metrics import balanced_accuracy_score

    def stacked(a: DataTable, b: DataTable) -> tuple[Array, Array]:
        points = np.concatenate([gower_points(a, real), gower_points(b, real)])
        return points, np.repeat([0, 1], [len(a), len(b)])

    (x, y), (x_test, y_test) = stacked(real, fake), stacked(real_test, fake_test)
    return {
        name: float(balanced_accuracy_score(y_test, _fitted(learner, x, y).predict(x_test)))
        for name, learner in _learners(True, seed).items()
    }


def _features(table: DataTable, columns: Any) -> Array:
    """All columns but the target, categories one-hot, the first dropped."""
    parts = []
    for column, values in zip(columns[:-1], table.values.T[:-1], strict=True):
        if column.kind == "categorical":
            parts.append(values[:, None] == np.arange(1, column.categories))
        else:
            parts.append(values[:, None])
    return np.concatenate(parts, axis=1).astype(np.float64)


def _learners(classify: bool, seed: int) -> dict[str, Any]:
    """The learners of ForestDiffusion without gradient boosting.

    The linear ones have no penalty; their columns are scaled only to help the optimiser.
    """
    from sklearn import ensemble, linear_model
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    state = seed_for(purpose="tabular/learner", seed=seed) % 2**32
    if classify:
        return {
            "linear": make_pipeline(MinMaxScaler(), linear_model.LogisticRegression(C=np.inf, max_iter=500)),
            "adaboost": ensemble.AdaBoostClassifier(random_state=state),
            "forest": ensemble.RandomForestClassifier(max_depth=28, random_state=state),
        }
    return {
        "linear": linear_model.LinearRegression(),
        "adaboost": ensemble.AdaBoostRegressor(random_state=state),
        "forest": ensemble.RandomForestRegressor(max_depth=28, random_state=state),
    }


def _fitted(learner: Any, x: Array, y: Array) -> Any:
    """The fitted learner, without convergence warnings: linearly separable classes have no finite optimum.

    AdaBoost fails where no stump is better than chance; the largest class is predicted then.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            return learner.fit(x, y)
        except ValueError as error:
            if "worse than random" not in str(error):
                raise
            return DummyClassifier().fit(x, y)
