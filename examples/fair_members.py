"""Would an ensemble of networks with another recipe be the better reference?

Takes the networks of a label of size 1, one a repetition, which had no teachers, and the members of the pool, and
prints the mean validation NLL, by which a recipe is to be chosen, and the mean test accuracy and NLL, raw and
temperature-scaled, of all ensembles of k of each.  Reads predictions of a store and of what is released:

    python examples/fair_members.py cifar10-cpu "Students' recipe, labels alone"
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands.common import load_plan
from dbn_core.tasks.class_scores import score_arrays

Arrays = dict[str, np.ndarray[Any, Any]]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("suite", help="a suite of classification whose repetitions share one pool and one split")
parser.add_argument("label", help="of size 1, as in its report")
parser.add_argument("--store", type=Path, default=Path("results/store"))
asked = parser.parse_args()

plan, store = load_plan(asked.suite, asked.store, None, None, None)
others = [store.arrays("predictions", c.predictions) for c in plan.cells if (c.label, c.size) == (asked.label, 1)]
if not others:
    parser.error(f"no entry of {asked.suite} is called {asked.label} and has the size 1")
whole = max((c for c in plan.cells if c.is_reference), key=lambda cell: cell.size)
pool = store.arrays("predictions", whole.predictions)


def alone(ensemble: Arrays) -> Iterator[Arrays]:
    """Each member's predictions."""
    for index in range(len(ensemble["test"])):
        yield ensemble | {split: ensemble[split][index : index + 1] for split in ("test", "validation")}


def together(members: tuple[Arrays, ...]) -> Arrays:
    """The predictions of an ensemble."""
    joined = {split: np.concatenate([member[split] for member in members]) for split in ("test", "validation")}
    return members[0] | joined


def judged(ensemble: Arrays) -> Arrays:
    """Its predictions of the validation split, as if that were the test split."""
    return {"test": ensemble["validation"], "test_labels": ensemble["validation_labels"]}


for name, networks in (("pool", list(alone(pool))), (asked.label, others)):
    for size in range(1, len(others) + 1):
        ensembles = [together(chosen) for chosen in combinations(networks, size)]
        scores = [score_arrays(ensemble).examples for ensemble in ensembles]
        accuracy, nll, scaled = (np.mean([found[score] for found in scores]) for score in ("acc", "nll", "cnll"))
        validation = np.mean([score_arrays(judged(ensemble)).examples["nll"] for ensemble in ensembles])
        print(
            f"{name}, {size}: validation NLL {validation:.4f}; test {100 * accuracy:.2f} %, NLL {nll:.4f}, "
            f"scaled {scaled:.4f} ({len(scores)} ensembles)"
        )
