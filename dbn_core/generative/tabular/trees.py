"""A fitted forest in flat arrays: it predicts with all trees at once and is stored without scikit-learn.

>>> import numpy as np
>>> from sklearn.ensemble import RandomForestRegressor
>>> from dbn_core.generative.tabular.trees import Trees
>>> x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
>>> forest = RandomForestRegressor(5, max_depth=3, random_state=0).fit(x, np.hstack([x, x**2]))
>>> every = Trees.of(forest).predict(x)
>>> every.shape
(5, 40, 2)
>>> bool(np.allclose(every.mean(0), forest.predict(x), atol=1e-6))
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dbn_core.generative.tabular.data import Array


@dataclass(frozen=True)
class Trees:
    """M regression trees with their nodes concatenated; x goes to the right child where x[feature] > threshold.

    Attributes:
        roots: each tree's first node, intp [M].
        feature: column that a node compares, intp [nodes].
        threshold: float64 [nodes], as scikit-learn compares it with float32 input.
        children: the nodes to the left and to the right, intp [nodes, 2]; a leaf is its own child.
        values: predictions of the leaves, float32 [nodes, D].
        depth: of the deepest tree; after as many steps every row is at a leaf.
    """

    roots: Array
    feature: Array
    threshold: Array
    children: Array
    values: Array
    depth: int

    @classmethod
    def of(cls, forest: Any) -> Trees:
        """The trees of a fitted ``RandomForestRegressor``; its prediction is their mean."""
        trees = [tree.tree_ for tree in forest.estimators_]
        roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
        children = []
        for root, tree in zip(roots, trees, strict=True):
            both = np.column_stack([tree.children_left, tree.children_right])
            children.append(root + np.where(both < 0, np.arange(tree.node_count)[:, None], both))
        return cls(
            roots=roots,
            feature=np.concatenate([tree.feature.clip(0) for tree in trees]),
            threshold=np.concatenate([tree.threshold for tree in trees]),
            children=np.concatenate(children),
            values=np.concatenate([tree.value[:, :, 0] for tree in trees]).astype(np.float32),
            depth=max(tree.max_depth for tree in trees),
        )

    @classmethod
    def boosted(cls, model: Any) -> Trees:
        """The trees of a fitted ``HistGradientBoostingRegressor`` of numbers; its prediction is their sum.

        The first of them is the constant that boosting starts from.
        """
        nodes = [np.zeros(1, model._predictors[0][0].nodes.dtype), *(trees[0].nodes for trees in model._predictors)]
        nodes[0]["value"], nodes[0]["is_leaf"] = model._baseline_prediction.item(), 1
        roots = np.cumsum([0, *(len(tree) for tree in nodes[:-1])])
        every = np.concatenate(nodes)
        leaf, own = every["is_leaf"].astype(bool), np.arange(len(every))
        starts = np.repeat(roots, [len(tree) for tree in nodes])
        children = [np.where(leaf, own, starts + every[side]) for side in ("left", "right")]
        return cls(
            roots=roots,
            feature=np.where(leaf, 0, every["feature_idx"]).astype(np.intp),
            threshold=np.where(leaf, 0.0, every["num_threshold"]),
            children=np.column_stack(children).astype(np.intp),
            values=every["value"][:, None].astype(np.float32),
            depth=int(every["depth"].max()),
        )

    def predict(self, x: Array, chosen: Array | None = None) -> Array:
        """Predictions of every tree, float32 [M, N, D], of rows [N, F], which are compared as float32.

        With ``chosen``, int [N], row n is predicted by tree ``chosen[n]`` alone, and the result is [N, D].
        """
        x = np.asarray(x, np.float32)
        rows = np.arange(len(x)) * x.shape[1]
        node = np.repeat(self.roots[:, None], len(x), axis=1) if chosen is None else self.roots[chosen]
        for _ in range(self.depth):
            right = x.ravel().take(rows + self.feature.take(node)) > self.threshold.take(node)
            node = self.children.ravel().take(2 * node + right)
        return self.values.take(node, axis=0)


def pack_trees(forests: Sequence[Trees]) -> dict[str, torch.Tensor]:
    """Forests of equal numbers of trees as tensors, whole numbers as int32; see :func:`unpack_trees`."""
    arrays = {
        name: np.concatenate([getattr(forest, name) for forest in forests])
        for name in ("roots", "feature", "threshold", "children", "values")
    }
    sizes = [len(forest.feature) for forest in forests]
    numbers = {"nodes": np.array(sizes), "depth": np.array([forest.depth for forest in forests])}
    small = {name: array.astype(np.int32) for name, array in arrays.items() if array.dtype.kind == "i"}
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in {**arrays, **small, **numbers}.items()}


def unpack_trees(state: Mapping[str, torch.Tensor]) -> tuple[Trees, ...]:
    """The inverse of :func:`pack_trees`."""
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    ends = np.cumsum(arrays["nodes"])
    trees = len(arrays["roots"]) // len(ends)
    return tuple(
        Trees(
            arrays["roots"][number * trees : (number + 1) * trees].astype(np.intp),
            arrays["feature"][start:end].astype(np.intp),
            arrays["threshold"][start:end],
            arrays["children"][start:end].astype(np.intp),
            arrays["values"][start:end],
            int(arrays["depth"][number]),
        )
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True))
    )
